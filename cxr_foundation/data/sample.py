"""One radiograph of a shard: its facts as JSON, its picture as bytes in a tar file."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_foundation.contract import Aspect, InputContract, Intensity, Interpolation
from cxr_foundation.data import checked
from cxr_foundation.data.study import Study
from cxr_foundation.errors import BadShard, ContractError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr_foundation.images import Trust

__all__ = ["Sample", "Settings", "check_fits", "facts_of", "read_facts", "source_of"]

_SETS = ("labels", "absent", "uncertain")
_WORDS = ("split", "source", "licence", "view", "sex")
_HASHES = ("patient", "group", "study")
_HASH = re.compile(r"[0-9a-f]{32}")
_MAX_FACTS = 64 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What was done to the pixels of shards that `shard` made.

    Attributes:
        size: Height and width of each picture in pixels.
        bits: 8 or 16 per pixel, over the full range.
        aspect: How a picture was brought to a square; as in an input contract.
        intensity: Rule that was applied before that, at the picture's full size.
        percentile: (low, high) for the intensity "percentile".
        interpolation: Kernel of the one antialiased resize.
        trust: What was believed of DICOM files that contradict themselves about polarity, see
            `images.read_image`; None refused them.
    """

    size: int = 512
    bits: int = 8
    aspect: Aspect = "squash"
    intensity: Intensity = "voi"
    percentile: tuple[float, float] | None = None
    interpolation: Interpolation = "bilinear"
    trust: Trust | None = None

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ContractError("bits", f"{self.bits!r} is neither 8 nor 16")
        if self.trust not in (None, "photometric", "shape"):
            raise ContractError("trust", f"{self.trust!r} is neither 'photometric' nor 'shape'")
        if not self.contract.complete:
            raise ContractError("intensity", "'unknown' cannot be applied")

    @classmethod
    def of(
        cls, contract: InputContract, *, size: int, bits: int, trust: Trust | None = None
    ) -> Settings:
        """Settings whose shards serve `contract`."""
        return cls(
            size=size,
            bits=bits,
            aspect=contract.aspect,
            intensity=contract.intensity,
            percentile=contract.percentile,
            interpolation=contract.interpolation,
            trust=trust,
        )

    @property
    def contract(self) -> InputContract:
        """One channel in [0, 1] of this size."""
        return InputContract(
            channels=1,
            size=(self.size, self.size),
            aspect=self.aspect,
            intensity=self.intensity,
            percentile=self.percentile,
            interpolation=self.interpolation,
            mean=(0.0,),
            std=(1.0,),
        )

    def check(self, contract: InputContract) -> None:
        """Refuse shards whose pixels were prepared otherwise than `contract` asks.

        Raises:
            ContractError: Another intensity rule or aspect, or less resolution.
        """
        for key in ("intensity", "percentile", "aspect", "interpolation"):
            made, asked = getattr(self, key), getattr(contract, key)
            if made != asked:
                raise ContractError(
                    f"contract: {key}",
                    f"the shards were made with {made!r}, {asked!r} is asked for",
                    f"Make them again with `cxr shard`, with {asked!r}.",
                )
        if contract.aspect != "squash" and contract.size[0] != contract.size[1]:
            raise ContractError("contract: size", "shards are square, what is asked for is not")
        if max(contract.size) > self.size:
            raise ContractError(
                "contract: size",
                f"the shards have {self.size} pixels a side, {max(contract.size)} are asked for",
                f"Make them again with `cxr shard --size {max(contract.size)}`.",
            )

    def rest(self, contract: InputContract) -> InputContract:
        """What is left to do of `contract` for pixels of these shards: size, mean and std.

        Raises:
            ContractError: See `check`.
        """
        self.check(contract)
        return dataclasses.replace(contract, intensity="full_range", percentile=None)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample(Study):
    """One radiograph of a shard.

    `path` is where it would lie if the shard were a folder ("shard-000003.tar/000003127.png"): no
    such file exists, it names the sample in messages and tables.

    Attributes:
        key: Its name in the shard.
        label: What a foreign shard's JSON has under "label".
        shard: The tar file.
        offset: Of the picture's first byte in it.
        size: Of the picture in bytes.
        sha256: Of the picture's bytes; "" for a foreign shard.
        settings: How the picture was made; None for a foreign shard.
    """

    key: str
    label: tuple[float, ...] = ()
    shard: Path
    offset: int
    size: int
    sha256: str = ""
    settings: Settings | None = None

    def pixels(self) -> NDArray[np.float32]:
        """The picture as float32 (H, W) in [0, 1], bone bright.

        Raises:
            BadShard: The shard has changed or is damaged; names it and the sample.
            UnreadableImage: Not a picture, or a damaged one (foreign shards).
            UnsupportedPixels: Pixels whose meaning would have to be guessed (foreign shards).
        """
        from cxr_foundation.images.picture import read_picture

        data = self._bytes()
        if self.settings is None:
            return read_picture(self.path, data).values
        return _decoded(self.path, data, self.settings)

    def _bytes(self) -> bytes:
        try:
            return checked.read(self.shard, offset=self.offset, size=self.size, sha256=self.sha256)
        except checked.OtherBytes:
            raise BadShard(self.path, "has other bytes than when it was written") from None
        except EOFError:
            raise BadShard(self.path, "is cut off") from None
        except OSError as error:
            raise BadShard(self.path, f"cannot be read ({error.strerror})") from None


def _decoded(path: Path, data: bytes, settings: Settings) -> NDArray[np.float32]:
    # Not read_picture: it takes a dark 16-bit file for one of a 12-bit detector.
    import numpy as np
    from PIL import Image

    from cxr_foundation.images.source import LIBRARY_ERRORS, quiet

    mode, top = {8: ("L", 255), 16: ("I;16", 65535)}[settings.bits]
    try:
        with quiet, Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.mode != mode or picture.size != (settings.size,) * 2:
                raise BadShard(path, f"is not a picture of {settings.size} pixels and {mode}")
            values = np.asarray(picture)
    except BadShard:
        raise
    except LIBRARY_ERRORS:
        raise BadShard(path, "its picture is damaged") from None
    scaled: NDArray[np.float32] = np.true_divide(values, np.float32(top), dtype=np.float32)
    return scaled


def source_of(
    study: Study, contract: InputContract
) -> tuple[Path | NDArray[np.float32], InputContract]:
    """What a processor of the second takes to prepare a study by `contract`: a file or pixels.

    Raises:
        BadShard, ImageError: See `Sample.pixels`.
        ContractError: A sample whose pixels were prepared otherwise than `contract` asks.
    """
    if not isinstance(study, Sample):
        return study.path, contract
    rest = contract if study.settings is None else study.settings.rest(contract)
    return study.pixels(), rest


def check_fits(studies: Sequence[Study], contract: InputContract) -> None:
    """Refuse shards that cannot serve `contract` before any of them is read.

    Raises:
        ContractError: See `Settings.check`. Samples of one folder were all made alike.
    """
    first = studies[0] if studies else None
    if isinstance(first, Sample) and first.settings is not None:
        first.settings.check(contract)


def facts_of(study: Study, *, patient: str, group: str, examination: str) -> dict[str, Any]:
    """What a shard says about a radiograph: an allow-list, with hashes for identifiers.

    Boxes and masks are left out: they are in pixels of the original picture.
    """
    facts: dict[str, Any] = {k: sorted(getattr(study, k)) for k in _SETS}
    facts |= {k: getattr(study, k) for k in (*_WORDS, "frontal", "age", "original_size")}
    facts |= {"patient": patient, "group": group, "study": examination}
    return {k: v for k, v in facts.items() if v not in ("", None, [])}


def read_facts(subject: str | Path, text: bytes) -> dict[str, Any]:
    """A sample's JSON as arguments of `Sample`; nothing but the allow-list is let through.

    Raises:
        BadShard: Not JSON, or a fact that is unknown (it may identify somebody) or of another
            type. No value and no unknown key is quoted.
    """
    if len(text) > _MAX_FACTS:
        raise BadShard(subject, f"its facts are longer than {_MAX_FACTS:,} bytes")
    try:
        # Decoded here: json.loads would take bytes of five other encodings as well.
        facts = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadShard(subject, "its facts are not JSON in UTF-8") from None
    if not isinstance(facts, dict):
        raise BadShard(subject, "its facts are not a JSON object")
    return {key: _fact(subject, key, facts) for key in facts}


def _fact(subject: str | Path, key: str, facts: Mapping[str, Any]) -> Any:
    value = facts[key]
    if key in _SETS and _is_list_of(value, str):
        return frozenset(value)
    if key in _WORDS and isinstance(value, str):
        return value
    if key in _HASHES and isinstance(value, str) and _HASH.fullmatch(value):
        return value
    if key == "frontal" and isinstance(value, bool):
        return value
    if key == "age" and _is_number(value) and 0 <= value <= 130:
        return float(value)
    if key == "original_size" and _is_list_of(value, int) and len(value) == 2:
        return tuple(value)
    if key == "label":
        label = value if isinstance(value, list) else [value]
        if all(_is_number(v) for v in label):
            return tuple(label)
    known = {*_SETS, *_WORDS, *_HASHES, "frontal", "age", "original_size", "label"}
    if key in known:
        raise BadShard(subject, f"its {key!r} is of a wrong type or is no keyed hash")
    raise BadShard(
        subject,
        "its facts have a key that is not on the allow-list and may identify a patient",
        f"Leave only {', '.join(sorted(known))}.",
    )


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(v) is kind for v in value)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer of JSON may be larger than any float.
    return abs(value) < 1e300 and math.isfinite(value)
