"""Does this look like what an encoder expects: upright, bone bright, frontal, whole?

The header is asked first, then the pixels, by two small networks that ship with the package. They
were trained on radiographs that were turned, inverted, mirrored and cut by benchmarks/guards.py,
which also measures how often they are right. A guard only ever speaks: `corrected` changes pixels
when it is asked to, and only turns and inverts them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_foundation.images.facts import OTHER, Facts
from cxr_foundation.images.lettering import lettering
from cxr_foundation.images.thumbnail import thumbnail

__all__ = ["Measures", "Notice", "corrected", "examine", "in_state", "may_be_shown", "measure"]

# Thresholds: chosen on the dev part of splits.csv by `benchmarks/guards.py score`.
_STATE = 0.9
_UNLIKE = 0.18
_CROPPED = 0.9
# Of a picture that may be a mere part of a chest the lie is less sure: it is not set right.
_WHOLE = 0.5
_MIRRORED = 0.97
_LETTERS = 12.0

# PS3.3 C.7.6.1.1.1, where rows and columns lead: frontal radiographs by counter-clockwise
# quarter turns, and as they are seen from behind.
_TURNS: dict[tuple[str, ...], int] = {("L", "F"): 0, ("F", "R"): 1, ("R", "H"): 2, ("H", "L"): 3}
_MIRROR_TURNS: dict[tuple[str, ...], int] = {
    ("R", "F"): 0,
    ("F", "L"): 1,
    ("L", "H"): 2,
    ("H", "R"): 3,
}
_FRONTAL_VIEWS = {"", OTHER, "AP", "PA", "LORDOTIC", "LLD", "RLD"}
_CHESTS = {"", OTHER, "CHEST", "CHESTABDOMEN", "LUNG", "RIB", "RIBS", "STERNUM", "THORAX"}
_RADIOGRAPHS = {"", OTHER, "CR", "DX", "OT", "RF", "RG", "SC"}
_DEGREES = ("0°", "90° counter-clockwise", "180°", "90° clockwise")
_ORIENTATION = "(0020,0020) PatientOrientation"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One thing about a radiograph that its reader should know.

    Attributes:
        kind: "inverted", "turned", "non_frontal", "cropped", "mirrored", "burned_in" or
            "contradiction".
        by: "header" or "pixels".
        text: What it is, in words.
        measure: What the pixels gave: evidence from 0 to 1, for "burned_in" strokes in a row;
            None where only the header speaks.
        turns: Counter-clockwise quarter turns that the picture has been turned by.
        fixable: Whether `corrected` sets it right.
    """

    kind: str
    by: str
    text: str
    measure: float | None = None
    turns: int = 0
    fixable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return dataclasses.asdict(self)


class Measures(NamedTuple):
    """What the pixels say, as evidence from 0 to 1.

    Attributes:
        states: Of each of the eight ways that a frontal radiograph can lie, see `in_state`.
        unlike: Share of the picture, set right, that no frontal radiograph explains.
        cropped: That a third of the chest is missing at a side, or a fifth all around.
        mirrored: That the heart is on the wrong side: a mirror image, or situs inversus.
    """

    states: tuple[float, ...]
    unlike: float
    cropped: float
    mirrored: float

    @property
    def state(self) -> int:
        """The likeliest state."""
        return int(np.argmax(self.states))


def in_state(values: npt.NDArray[np.float32], state: int) -> npt.NDArray[np.float32]:
    """An upright picture, brought into one of eight states.

    Args:
        values: float32 (H, W) in [0, 1].
        state: Twice the counter-clockwise quarter turns, and one more if it is inverted.
    """
    turned = np.rot90(values, state // 2)
    return 1 - turned if state % 2 else turned


def _set_right(values: npt.NDArray[Any], state: int, top: float) -> npt.NDArray[Any]:
    turned = np.rot90(values, -(state // 2))
    return top - turned if state % 2 else turned


def corrected(
    values: npt.NDArray[np.float32], notices: Iterable[Notice]
) -> npt.NDArray[np.float32]:
    """The picture with its polarity and its rotation set right, as far as notices are fixable.

    Args:
        values: float32 (H, W) in [0, 1].
        notices: What `examine` said about it.

    Returns:
        float32 (H, W) or (W, H) in [0, 1]; the same array if nothing is to be done.
    """
    state = 0
    for notice in notices:
        if notice.fixable:
            state += 2 * notice.turns + (notice.kind == "inverted")
    return np.ascontiguousarray(_set_right(values, state, 1.0)) if state else values


@functools.cache
def _network() -> dict[str, npt.NDArray[np.float32]]:
    file = resources.files("cxr_foundation.images") / "guard.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def _scores(name: str, flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    net = _network()
    hidden = np.maximum(flat @ net[f"{name}_w1"] + net[f"{name}_b1"], 0)
    return np.asarray(hidden @ net[f"{name}_w2"] + net[f"{name}_b2"], dtype=np.float32)


def measure(values: npt.NDArray[np.float32]) -> Measures:
    """What the pixels say of how a radiograph lies, whether it is one, and is whole.

    Args:
        values: float32 (H, W) in [0, 1], at least 2 pixels a side.
    """
    small = thumbnail(values)
    scores = _scores("state", small.ravel())
    weights = np.exp(scores - scores.max())
    states = weights / weights.sum()
    # Ranks change their sign with the polarity, so that white is 0 here.
    flat = _set_right(small, int(states.argmax()), 0.0).ravel()
    net = _network()
    centred = flat - net["mean"]
    explained = net["components"].T @ (net["components"] @ centred)
    energy = float(flat @ flat)
    rest = centred - explained
    unlike = float(rest @ rest) / energy if energy else 1.0
    cropped, mirrored = 1 / (1 + np.exp(-_scores("pose", flat)))
    return Measures(
        tuple(float(s) for s in states), min(unlike, 1.0), float(cropped), float(mirrored)
    )


def examine(values: npt.NDArray[np.float32], facts: Facts | None = None) -> tuple[Notice, ...]:
    """What a reader of this radiograph should know before an encoder sees it.

    Args:
        values: float32 (H, W) in [0, 1] as `images.read_image` gives it.
        facts: Its header's, if it is a DICOM file.

    Returns:
        Notices, the header's first; empty if there is nothing to say. Of a picture that is not a
        frontal chest radiograph no turn, polarity or side is said: they mean nothing there.
    """
    facts = facts or Facts()
    found = _letters(values, facts)
    stated = _not_frontal(facts)
    if stated is not None:
        return (*found, stated)
    way = tuple(p[0] for p in facts.orientation)
    if way in _MIRROR_TURNS:
        text = (
            f"{_ORIENTATION} is {' and '.join(facts.orientation)}: "
            "the picture is seen from behind, the patient's left on its left"
        )
        found.append(Notice(kind="mirrored", by="header", text=text))
    seen = measure(values)
    if seen.unlike > _UNLIKE:
        text = "does not look like a frontal chest radiograph"
        found.append(Notice(kind="non_frontal", by="pixels", text=text, measure=seen.unlike))
        return (*found, *_cropped(seen))
    return (*found, *_by_pixels(seen, facts))


def may_be_shown(notices: Iterable[Notice]) -> bool:
    """Whether a picture may go where others see it: a gallery, a list of neighbours, a push.

    A radiograph with text in its pixels, by its header or by what they look like, may name the
    patient and is kept out. Whoever writes radiographs into a report asks this first.

    Args:
        notices: What `examine` said about it.
    """
    return all(n.kind != "burned_in" for n in notices)


def _letters(values: npt.NDArray[np.float32], facts: Facts) -> list[Notice]:
    """(0028,0301) BurnedInAnnotation, PS3.3 C.7.6.1.1.5, and the pixels whatever it says."""
    found = []
    if facts.burned_in == "YES":
        text = "(0028,0301) BurnedInAnnotation is YES: text in the pixels may name the patient"
        found.append(Notice(kind="burned_in", by="header", text=text))
    strokes = lettering(values)
    if strokes > _LETTERS:
        text = "there are letters in the pixels, which may name the patient"
        if facts.burned_in == "NO":
            text += ", though (0028,0301) BurnedInAnnotation is NO"
        found.append(Notice(kind="burned_in", by="pixels", text=text, measure=strokes))
    return found


def _not_frontal(facts: Facts) -> Notice | None:
    """(0008,0060), (0018,0015), (0018,5101) and (0020,0020)."""
    text = ""
    if facts.modality not in _RADIOGRAPHS:
        text = f"(0008,0060) Modality is {facts.modality}: no radiograph"
    elif facts.body_part not in _CHESTS:
        text = f"(0018,0015) BodyPartExamined is {facts.body_part}: not a chest"
    elif facts.view not in _FRONTAL_VIEWS:
        text = f"(0018,5101) ViewPosition is {facts.view}: not a frontal view"
    elif {"A", "P"} & {p[0] for p in facts.orientation}:
        text = f"{_ORIENTATION} is {' and '.join(facts.orientation)}: not a frontal view"
    return Notice(kind="non_frontal", by="header", text=text) if text else None


def _by_pixels(seen: Measures, facts: Facts) -> list[Notice]:
    found = []
    by_turn = np.reshape(seen.states, (4, 2)).sum(axis=1)
    by_polarity = np.reshape(seen.states, (4, 2)).sum(axis=0)
    turns = int(by_turn.argmax())
    way = tuple(p[0] for p in facts.orientation)
    stated = {**_TURNS, **_MIRROR_TURNS}.get(way)
    evidence = float(by_turn[turns])
    if turns and evidence >= _STATE:
        text = f"is turned by {_DEGREES[turns]}"
        agrees = stated in (None, turns)
        if stated is not None:
            verb = "says so" if agrees else "says otherwise: it is left as it is"
            text += f"; {_ORIENTATION} {verb}"
        if facts.turned or facts.flipped == "YES":
            # PS3.3 C.8.11.4.1.1: what these two say has been done to the stored pixels already.
            text += "; (0018,7032) and (0018,7034) say that the device turned or flipped it"
        by = "header" if stated == turns else "pixels"
        notice = Notice(
            kind="turned" if agrees else "contradiction", by=by, text=text, measure=evidence,
            turns=turns, fixable=agrees and seen.cropped < _WHOLE,
        )  # fmt: skip
        found.append(notice)
    elif stated and turns == 0 and evidence >= _STATE:
        text = f"{_ORIENTATION} says that it is turned by {_DEGREES[stated]}; it does not look so"
        found.append(Notice(kind="contradiction", by="pixels", text=text, measure=evidence))
    if by_polarity[1] >= _STATE:
        text = "is inverted: bone is dark"
        evidence = float(by_polarity[1])
        found.append(
            Notice(
                kind="inverted",
                by="pixels",
                text=text,
                measure=evidence,
                fixable=seen.cropped < _WHOLE,
            )
        )
    found += _cropped(seen)
    if seen.mirrored >= _MIRRORED:
        text = "is mirrored, or the patient has situs inversus"
        found.append(Notice(kind="mirrored", by="pixels", text=text, measure=seen.mirrored))
    return found


def _cropped(seen: Measures) -> list[Notice]:
    if seen.cropped < _CROPPED:
        return []
    text = "part of the chest is cut off"
    return [Notice(kind="cropped", by="pixels", text=text, measure=seen.cropped)]
