"""One radiograph of a data set, its boxes and its masks: `Study`, `Box`, `Mask`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_foundation.errors import BadIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Box", "Mask", "MaskFile", "Polygon", "RunLengths", "Study"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle around a finding, in pixels of the picture as its data set publishes it.

    Attributes:
        finding: What is in it, in the words of `data.findings`.
        x: Left edge, from the left of the picture.
        y: Upper edge, from the top of the picture.
        width: To the right of `x`.
        height: Downwards from `y`.
    """

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MaskFile:
    """A mask that is a picture: what is brighter than `above` belongs to it.

    Attributes:
        path: The picture; it lies inside the folder of its data set.
        above: Threshold on float32 [0, 1] as `images.read_image` gives it.
    """

    path: Path
    above: float = 0.5

    def array(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W).

        Raises:
            UnreadableImage: Not a picture, or a damaged one.
            UnsupportedPixels: Pixels whose meaning would have to be guessed.
        """
        from cxr_foundation.images import read_image

        return read_image(self.path) > self.above


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunLengths:
    """A mask as text: pairs of a run's start and its length.

    Attributes:
        text: Integers with spaces between them.
        size: (width, height) of the picture in pixels.
        columns: Runs go down the columns (Kaggle's), not along the rows.
        relative: A start counts from the end of the run before it, not from the first pixel.
        first: The number of the first pixel, 0 or 1.
    """

    text: str = dataclasses.field(repr=False)
    size: tuple[int, int]
    columns: bool
    relative: bool
    first: int = 0

    def array(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W).

        Raises:
            BadIndex: Not pairs of integers, or a run that leaves the picture.
        """
        import numpy as np

        width, height = self.size
        try:
            numbers = np.array([int(n) for n in self.text.split()], dtype=np.int64)
        except (ValueError, OverflowError):
            raise BadIndex("mask", "its run lengths are not integers") from None
        if len(numbers) % 2:
            raise BadIndex("mask", "its run lengths are not pairs of start and length")
        starts, lengths = numbers[0::2], numbers[1::2]
        if (lengths < 0).any() or (starts < 0).any() or (numbers > width * height).any():
            raise BadIndex("mask", f"a run leaves the picture of {width} x {height} pixels")
        if self.relative:
            # A start is the gap since the last run's end, so ends are sums of gaps and lengths.
            starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
        starts = starts - self.first
        if ((starts < 0) | (starts + lengths > width * height)).any():
            raise BadIndex("mask", f"a run leaves the picture of {width} x {height} pixels")
        flat = np.zeros(width * height, dtype=np.bool_)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            flat[start : start + length] = True
        if self.columns:
            return np.ascontiguousarray(flat.reshape(width, height).T)
        return flat.reshape(height, width)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Polygon:
    """A mask as the closed line around it.

    Attributes:
        points: (x, y) in pixels of the original picture; (0, 0) is the first pixel's centre.
        size: (width, height) of the picture in pixels, or the picture, where the data set does
            not say how large it is.
    """

    points: tuple[tuple[float, float], ...] = dataclasses.field(repr=False)
    size: tuple[int, int] | Path

    def array(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W): the line's own pixels belong to it.

        Raises:
            BadIndex: Fewer than three points.
            UnreadableImage, UnsupportedPixels: The picture whose size is asked for.
        """
        import numpy as np
        from PIL import Image, ImageDraw

        from cxr_foundation.images import read_image

        if len(self.points) < 3:
            raise BadIndex("mask", f"a polygon of {len(self.points)} points encloses nothing")
        size = self.size
        if isinstance(size, Path):
            height, width = read_image(size).shape
            size = width, height
        drawn = Image.new("1", size)
        ImageDraw.Draw(drawn).polygon(list(self.points), fill=1, outline=1)
        return np.array(drawn, dtype=np.bool_)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """The pixels of an organ or a finding.

    Attributes:
        name: What is inside, in the words of `data.findings` ("pneumothorax", "left_lung").
        shape: Where the mask is from.
    """

    name: str
    shape: MaskFile | RunLengths | Polygon

    def array(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W) of the original picture's size; a `MaskFile` has its own size.

        Raises:
            BadIndex: Run lengths or a polygon that make no mask.
            UnreadableImage: A file that is not a picture, or a damaged one.
            UnsupportedPixels: A file whose pixels would have to be guessed at.
        """
        return self.shape.array()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One radiograph: a file, and what its data set says about it.

    A finding that is in none of `labels`, `absent` and `uncertain` is not stated.

    Attributes:
        path: The picture or DICOM; it lies inside the folder of its index.
        labels: Findings that are stated as present, "normal" and "unlabelled" among them.
        absent: Findings that are stated as absent (indices with one 0/1 column per finding).
        uncertain: Findings that are stated as neither (CheXpert's -1).
        patient: Patient, by the index's own pseudonym. For DICOM folders and published data sets
            a keyed hash that means nothing to those who do not have the key.
        group: What a split keeps together; the patient unless the index has a `split_group`.
        study: The examination that the picture is of, a keyed hash; "" if unknown.
        split: "pretrain", "dev" or "test" from an index. From a published data set its own
            name of the part ("train_val", "valid"). None if the data set has no split.
        source: Short name of the data set that the picture is from ("nih"), or "".
        origin: Where a collection of data sets took the picture from, in its own words, or "".
        licence: Terms of this picture as the index words them, or "".
        view: "AP", "PA", "LATERAL", … or "".
        frontal: Whether the picture is a frontal view; None if unknown.
        sex: "F", "M" or "".
        age: Years; None if unknown.
        original_size: (width, height) in pixels before the copy was made; None if unknown.
        boxes: Rectangles around findings.
        masks: Outlines of organs and findings.
    """

    path: Path
    labels: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    uncertain: frozenset[str] = frozenset()
    patient: str
    group: str
    study: str = ""
    split: str | None = None
    source: str = ""
    origin: str = ""
    licence: str = ""
    view: str = ""
    frontal: bool | None = None
    sex: str = ""
    age: float | None = None
    original_size: tuple[int, int] | None = None
    boxes: tuple[Box, ...] = ()
    masks: tuple[Mask, ...] = ()

    def pixels(self) -> NDArray[np.float32]:
        """The picture as `images.read_image` gives it: float32 (H, W) in [0, 1], bone bright.

        Raises:
            UnreadableImage: Not a picture or DICOM, or a damaged one.
            UnsupportedPixels: Pixels whose meaning would have to be guessed.
        """
        from cxr_foundation.images import read_image

        return read_image(self.path)
