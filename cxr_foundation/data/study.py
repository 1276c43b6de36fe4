"""One radiograph of a data set: `Study`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Study"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One frontal radiograph: a file, and what its index says about it.

    Attributes:
        path: The picture or DICOM; it lies inside the folder of its index.
        labels: Findings that are stated as present, "normal" and "unlabelled" among them.
        absent: Findings that are stated as absent (indices with one 0/1 column per finding).
        patient: Patient, by the index's own pseudonym. For DICOM folders a keyed hash that
            means nothing outside this process.
        group: What a split keeps together; the patient unless the index has a `split_group`.
        split: "pretrain", "dev" or "test"; None if the data set has no split.
        source: Short name of the data set that the picture is from ("nih"), or "".
        licence: Terms of this picture as the index words them, or "".
        view: "AP", "PA", … or "".
        sex: "F", "M" or "".
        age: Years; None if unknown.
        original_size: (width, height) in pixels before the copy was made; None if unknown.
    """

    path: Path
    labels: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    patient: str
    group: str
    split: str | None = None
    source: str = ""
    licence: str = ""
    view: str = ""
    sex: str = ""
    age: float | None = None
    original_size: tuple[int, int] | None = None

    def pixels(self) -> NDArray[np.float32]:
        """The picture as `images.read_image` gives it: float32 (H, W) in [0, 1], bone bright.

        Raises:
            UnreadableImage: Not a picture or DICOM, or a damaged one.
            UnsupportedPixels: Pixels whose meaning would have to be guessed.
        """
        from cxr_foundation.images import read_image

        return read_image(self.path)
