"""JSRT: 247 scanned films, 154 with one nodule; SCR's masks; pairs with suppressed bones.

Releases, all of which may lie in one folder, each unpacked as it comes:
* JSRT (http://db.jsrt.or.jp/eng.php, research use): JPCLN001.IMG … and JPCNN001.IMG …, raw, 2048 x
  2048, 12 bits, big-endian, 0.175 mm; CLNDAT_EN.txt and CNNDAT_EN.TXT with age, sex, and the
  nodule's size and centre. Copies as PNG under the same names are read as well.
* SCR (https://www.isi.uu.nl/Research/Databases/SCR/data.php): fold1/masks/left lung/JPCLN001.gif …
  of both lungs, the heart and both clavicles, 1024 x 1024, as if one faced the patient.
* BSE-JSRT (https://www.kaggle.com/datasets/hmchuong/xray-bone-shadow-supression): BSE_JSRT with
  JPCLN001.png …, the same films with suppressed bones. Its folder `augmented` is not read.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_foundation.data.findings import harmonise
from cxr_foundation.data.pseudonym import pseudonym
from cxr_foundation.data.reading import reader
from cxr_foundation.data.study import Box, Mask, MaskFile, Study
from cxr_foundation.data.walking import small_text, walk
from cxr_foundation.errors import BadIndex, NoImages, UnsupportedPixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Pair", "pairs", "read"]

# https://www.isi.uu.nl/Research/Databases/SCR/data.php: "a size of 2048 by 2048 pixels, a spatial
# resolution of .175 mm/pixel".
_SIZE = (2048, 2048)
_MM = 0.175

_NAME = re.compile(r"JPC(LN|NN)\d{3}")
_ORGANS = {
    "left lung": "left_lung",
    "right lung": "right_lung",
    "heart": "heart",
    "left clavicle": "left_clavicle",
    "right clavicle": "right_clavicle",
}
_SEXES = {"female": "F", "male": "M"}
_NODULE = harmonise("nodule", "jsrt")
# Name, subtlety, size in mm, age, sex, x, y, malignant or benign; then the place and a diagnosis,
# which are not read. Unknown numbers are "?". Line ends differ from copy to copy, so do commas.
_ANY = re.compile(r"JPC(?:LN|NN)\d{3}(?=\.IMG)", re.IGNORECASE)
_WITH = re.compile(
    r"(JPCLN\d{3})\.IMG\s+\S+\s+(\S+)\s+(\S+)\s+(\S+)\s+(\d+)\s+(\d+)\s+(malignant|benign)",
    re.IGNORECASE,
)
_WITHOUT = re.compile(r"(JPCNN\d{3})\.IMG\s+(\S+)\s+(\S+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A film and the same film with suppressed bones.

    Attributes:
        study: The film.
        suppressed: The picture without bones, of its own size.
    """

    study: Study
    suppressed: Path

    def pixels(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both pictures as `images.read_image` gives them, float32 (H, W) in [0, 1].

        Raises:
            UnreadableImage: One of them is damaged.
            UnsupportedPixels: One of them is inverted: copies of this data set come in both
                polarities, and one that does not fit its partner is not turned silently.
        """
        import numpy as np

        from cxr_foundation.images import read_image

        film, suppressed = self.study.pixels(), read_image(self.suppressed)
        one, other = (_thumbnail(p) - _thumbnail(p).mean() for p in (film, suppressed))
        if float(np.sum(one * other)) <= 0:
            raise UnsupportedPixels(
                self.suppressed,
                f"is inverted against {self.study.path.name}",
                "Invert the copy whose bones are dark.",
            )
        return film, suppressed


@dataclasses.dataclass(slots=True)
class _Files:
    """The files of one release or of several, by a film's name."""

    films: dict[str, Path] = dataclasses.field(default_factory=dict)
    suppressed: dict[str, Path] = dataclasses.field(default_factory=dict)
    masks: dict[str, dict[str, Path]] = dataclasses.field(default_factory=dict)
    folds: dict[str, str] = dataclasses.field(default_factory=dict)


def _is_jsrt(folder: Path) -> bool:
    return any(
        next(folder.glob(f"{place}JPC[LN]N*"), None) is not None
        for place in ("", "All247images/", "JSRT/", "JSRT/JSRT/")
    )


@reader("jsrt", title="JSRT, with SCR's masks and BSE-JSRT", recognises=_is_jsrt)
def read(folder: Path) -> list[Study]:
    """JSRT, one study per film, sorted by name; all are PA views, and each is a patient.

    A film with a nodule has "nodule", "benign_nodule" or "malignant_nodule" where the clinical
    table is there, and a box around it of its size; a nodule whose size is not stated has a box
    of width and height 0 at its centre. A film without states that "nodule" is absent, not that
    it is normal. The split is SCR's fold where its masks are there.

    Raises:
        BadIndex: Two films of one name, or a clinical table that names a film twice or whose
            entries cannot be read.
    """
    files = _files(folder)
    facts = _clinical(folder)
    return [_study(name, path, files, facts.get(name, {})) for name, path in files.films.items()]


def pairs(folder: Path) -> list[Pair]:
    """Every film that is there with and without bones, sorted by name.

    Raises:
        NoImages: There is no such pair.
        BadIndex: As for `read`.
    """
    files = _files(folder)
    found = [
        Pair(study=study, suppressed=files.suppressed[study.path.stem])
        for study in read(folder)
        if study.path.stem in files.suppressed
    ]
    if not found:
        raise NoImages(folder, "holds no film with and without bones", "It needs BSE_JSRT.")
    return found


def _files(folder: Path) -> _Files:
    files = _Files()
    copies: dict[str, dict[str, Path]] = {".img": {}, ".png": {}}
    for path in walk(folder, suffixes={".img", ".png", ".gif"}):
        if not _NAME.fullmatch(path.stem):
            continue
        parts = [part.lower() for part in path.relative_to(folder).parts[:-1]]
        organ = next((_ORGANS[p] for p in parts if p in _ORGANS), None)
        if "augmented" in parts:
            continue
        if organ is not None:
            _add(files.masks.setdefault(path.stem, {}), organ, path)
            fold = next((p for p in parts if p in ("fold1", "fold2")), None)
            if fold is not None:
                files.folds[path.stem] = fold
        elif any("bse" in part for part in parts):
            _add(files.suppressed, path.stem, path)
        elif path.suffix.lower() in copies:
            _add(copies[path.suffix.lower()], path.stem, path)
    # The film itself before a copy of fewer bits.
    films = copies[".png"] | copies[".img"]
    files.films = {name: films[name] for name in sorted(films)}
    return files


def _add(table: dict[str, Path], key: str, path: Path) -> None:
    first = table.setdefault(key, path)
    if first != path:
        raise BadIndex(path, f"is there twice, also as {first}", "Keep one of the two.")


def _study(name: str, path: Path, files: _Files, facts: dict[str, Any]) -> Study:
    patient = pseudonym("jsrt", name)
    nodule = name.startswith("JPCLN")
    stated = {_NODULE, facts["kind"]} if "kind" in facts else {_NODULE}
    return Study(
        path=path,
        labels=frozenset(stated) if nodule else frozenset(),
        absent=frozenset() if nodule else frozenset({_NODULE}),
        patient=patient,
        group=patient,
        split=files.folds.get(name),
        source="jsrt",
        view="PA",
        frontal=True,
        sex=facts.get("sex", ""),
        age=facts.get("age"),
        original_size=_SIZE,
        boxes=facts.get("boxes", ()),
        masks=tuple(
            Mask(name=organ, shape=MaskFile(path=mask))
            for organ, mask in sorted(files.masks.get(name, {}).items())
        ),
    )


def _clinical(folder: Path) -> dict[str, dict[str, Any]]:
    """What the clinical tables say of each film."""
    facts: dict[str, dict[str, Any]] = {}
    for table in walk(folder, suffixes={".txt"}):
        if table.name.upper() not in ("CLNDAT_EN.TXT", "CNNDAT_EN.TXT"):
            continue
        text = small_text(table, "latin-1").replace(",", " ")
        for found in _WITH.finditer(text):
            name, size, age, sex, x, y, kind = found.groups()
            kind = harmonise(kind, "jsrt")
            side = (_number(size) or 0.0) / _MM
            box = Box(
                finding=_NODULE,
                x=int(x) - side / 2,
                y=int(y) - side / 2,
                width=side,
                height=side,
            )
            _once(table, facts, name, age=age, sex=sex, kind=kind, boxes=(box,))
        for found in _WITHOUT.finditer(text):
            _once(table, facts, found[1], age=found[2], sex=found[3])
        unread = sorted({name.upper() for name in _ANY.findall(text)} - set(facts))
        if unread:
            # A film that silently lost its nodule would train as one without.
            raise BadIndex(table, f"the entry of {unread[0]} is not as the release has it")
    return facts


def _once(
    table: Path, facts: dict[str, dict[str, Any]], name: str, *, age: str, sex: str, **more: Any
) -> None:
    name = name.upper()
    if name in facts:
        raise BadIndex(table, f"names {name} twice")
    facts[name] = {"age": _number(age), "sex": _SEXES.get(sex.lower(), ""), **more}


def _number(text: str) -> float | None:
    """A number of at most three digits; None for a question mark."""
    return float(text) if re.fullmatch(r"\d{1,3}(\.\d)?", text) else None


def _thumbnail(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """32 x 32 pixels, enough to tell a radiograph from its inverse."""
    import numpy as np
    from PIL import Image

    small = Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)
