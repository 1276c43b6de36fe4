"""A folder per class, as torchvision's and `datasets`' ImageFolder have it.

`<class>/<picture>`, or `<part>/<class>/<picture>` where every folder at the top is called train,
val, valid, validation, dev or test. Folders below a class's are searched through.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.splits import SPLITS
from cxr_foundation.data.study import Study
from cxr_foundation.data.walking import walk
from cxr_foundation.errors import BadIndex

__all__ = ["read"]


@reader("image_folder", title="a folder per class", recognises=None)
def read(folder: Path, *, patient: str = "") -> list[Study]:
    """One study per picture, sorted by path; its label is its folder's name.

    Args:
        folder: Holds the classes or the parts.
        patient: A regular expression whose first group is the patient in a file's name, such as
            "(p[0-9]+)_". Without it each picture counts as a patient of its own, which puts
            pictures of one patient on two sides of a split wherever a patient has several.

    Raises:
        BadIndex: A picture beside the classes, one whose name `patient` does not fit, or an
            expression without a group.
    """
    try:
        expression = re.compile(patient) if patient else None
    except re.error as error:
        raise BadIndex(f"patient={patient!r}", f"no regular expression: {error}", "") from None
    if expression is not None and expression.groups < 1:
        raise BadIndex(f"patient={patient!r}", "has no group in parentheses", "")
    paths = walk(folder)
    inside = [path.relative_to(folder).parts for path in paths]
    depth = 1 if paths and all(parts[0] in SPLITS for parts in inside) else 0
    studies = []
    for path, parts in zip(paths, inside, strict=True):
        if len(parts) < depth + 2:
            raise BadIndex(path, "is in no class's folder")
        who = _patient(path, expression) if expression is not None else "/".join(parts)
        named = pseudonym("image_folder", who)
        studies.append(
            Study(
                path=path,
                labels=frozenset({parts[depth]}),
                patient=named,
                group=named,
                split=parts[0] if depth else None,
            )
        )
    return studies


def _patient(path: Path, expression: re.Pattern[str]) -> str:
    found = expression.search(path.name)
    if found is None or not found[1]:
        raise BadIndex(path, f"its name has no patient as {expression.pattern!r} asks for")
    return found[1]
