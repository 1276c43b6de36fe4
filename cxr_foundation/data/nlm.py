"""What the two tuberculosis sets of the National Library of Medicine have alike: `Release`.

A folder CXR_png with PREFIX_0001_0.png (last digit: 0 normal, 1 tuberculosis) and one
ClinicalReadings with a text of the same name. Sex and age are taken from it; the rest of it goes no
further.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.study import Mask, Study
from cxr_foundation.data.walking import small_text, walk
from cxr_foundation.errors import BadIndex

__all__ = ["Release"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """One of the two.

    Attributes:
        source: The data set's short name.
        folder: Name of the release's own folder, if it lies in the one that is read.
        prefix: That its pictures' names begin with.
        person: Sex and age in years of a clinical reading.
    """

    source: str
    folder: str
    prefix: str
    person: Callable[[str], tuple[str, float | None]]

    def root(self, folder: Path) -> Path:
        """The folder that CXR_png lies in."""
        nested = folder / self.folder
        return nested if nested.is_dir() else folder

    def is_in(self, folder: Path) -> bool:
        """Whether the release lies in a folder."""
        pictures = self.root(folder) / "CXR_png"
        return next(pictures.glob(f"{self.prefix}_*.png"), None) is not None

    def files(self, folder: Path, part: str) -> list[Path]:
        """The PNG files of a part of the release, each inside the folder; none if it has it not."""
        under = self.root(folder) / part
        if not under.is_dir():
            return []
        return walk(folder, under.relative_to(folder).as_posix(), {".png"})

    def studies(self, folder: Path, masks: Callable[[Path], tuple[Mask, ...]]) -> list[Study]:
        """One study per picture, by name; all are PA views.

        Args:
            folder: The release, or the folder that it lies in.
            masks: Of a picture.

        Raises:
            BadIndex: A picture whose name is not the release's.
        """
        normal, tb = (
            frozenset({harmonise(word, self.source)}) for word in ("normal", "tuberculosis")
        )
        studies = []
        for path in self.files(folder, "CXR_png"):
            name = re.fullmatch(rf"{self.prefix}_(?P<patient>\d+)_(?P<tb>[01])", path.stem)
            if name is None:
                raise BadIndex(path, "is not called as the pictures of this release are")
            patient = pseudonym(self.source, name["patient"])
            sex, age = self._reading(folder, path.stem)
            study = Study(
                path=path,
                labels=tb if name["tb"] == "1" else normal,
                absent=frozenset() if name["tb"] == "1" else tb,
                patient=patient,
                group=patient,
                source=self.source,
                view="PA",
                frontal=True,
                sex=sex,
                age=age,
                masks=masks(path),
            )
            studies.append(study)
        return studies

    def _reading(self, folder: Path, stem: str) -> tuple[str, float | None]:
        file = self.root(folder) / "ClinicalReadings" / f"{stem}.txt"
        return self.person(small_text(file, "latin-1")) if file.exists() else ("", None)
