"""Trains the guards' small network, and measures how often the guards are right.

    python benchmarks/guards.py train DATA            # writes cxr_foundation/images/guard.npz
    python benchmarks/guards.py score DATA --split dev
    python benchmarks/guards.py score --split test    # the bundled radiographs, if DATA is left out

DATA is a folder with index.csv and splits.csv. Training sees the `pretrain` part, and of it only
radiographs that may be handed on; thresholds were chosen on `dev`. Every figure is of real
radiographs; what is done to them (turns, inversions, mirror images, cuts) is done here.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cxr_foundation.data import Study, by_split, may_ship, read_index
from cxr_foundation.errors import ImageError
from cxr_foundation.images import guard, read_image
from cxr_foundation.images.thumbnail import SIDE, ranks, thumbnail

PACKAGE = Path(guard.__file__).resolve().parent.parent
BUNDLED = PACKAGE / "demo" / "radiographs"
Array = npt.NDArray[np.float32]

# Side of the copies that are augmented; four times the thumbnail's, so that shifts are smooth.
_COPY = 4 * SIDE
_EPOCHS, _BATCH, _SEED = 50, 128, 0
# Mirror images and cuts are harder to see than turns: each radiograph is taken more often.
_TAKES = 3


def copies(studies: list[Study]) -> Array:
    """Float32 (N, 80, 80): every radiograph, squashed."""
    small = [
        Image.fromarray(s.pixels()).resize((_COPY, _COPY), Image.Resampling.BOX) for s in studies
    ]
    return np.stack([np.asarray(p) for p in small])


def window(picture: Array, left: float, top: float, right: float, bottom: float) -> Array:
    """The part of a picture between four fractions of its sides, which may lie outside (black)."""
    wide, high = right - left, bottom - top
    affine = (wide, 0, left * _COPY, 0, high, top * _COPY)
    turned = Image.fromarray(picture).transform(
        (_COPY, _COPY), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


def cut(picture: Array, rng: np.random.Generator) -> Array:
    """A radiograph of which 30 to 50 % is missing on one side, or 18 to 28 % on all four."""
    edges = np.array([0.0, 0.0, 1.0, 1.0])
    kind = int(rng.integers(5))
    if kind == 4:
        lost = rng.uniform(0.18, 0.28)
        edges += np.array([lost, lost, -lost, -lost])
    else:
        edges[kind] += rng.uniform(0.3, 0.5) * (1 if kind < 2 else -1)
    return window(picture, *edges)


def shaken(picture: Array, rng: np.random.Generator) -> Array:
    """Another take of the same radiograph: placed, tilted, clipped and framed otherwise."""
    left, top = rng.uniform(-0.1, 0.08, 2)
    right, bottom = rng.uniform(0.92, 1.1, 2)
    picture = window(picture, left, top, right, bottom)
    tilted = Image.fromarray(picture).rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    values = np.asarray(tilted)
    low, high = np.quantile(values, [rng.uniform(0, 0.15), rng.uniform(0.85, 1)])
    return np.clip(values, low, high)


def framed(picture: Array, rng: np.random.Generator) -> Array:
    """With a third of the pictures: black or white bars at the sides, whatever the polarity."""
    if rng.random() > 1 / 3:
        return picture
    picture = picture.copy()
    value = picture.max() if rng.random() < 0.5 else picture.min()
    for side, bar in enumerate(rng.integers(0, _COPY // 8, 4)):
        turned = np.rot90(picture, side)
        turned[: int(bar)] = value
    return picture


def small(picture: Array) -> Array:
    """The thumbnail of a copy: mean over four by four pixels, then ranks."""
    shape = (SIDE, _COPY // SIDE, SIDE, _COPY // SIDE)
    return ranks(picture.reshape(shape).mean(axis=(1, 3), dtype=np.float32))


def train(studies: list[Study], out: Path) -> None:
    """Fit both networks and the components, and write them as float16."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    rng = np.random.default_rng(_SEED)
    pictures = copies(studies)
    hidden = {"state": 64, "pose": 96}
    outputs = {"state": 8, "pose": 2}
    nets = {
        k: nn.Sequential(
            nn.Linear(SIDE * SIDE, hidden[k]), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(hidden[k], outputs[k]),
        )
        for k in hidden
    }  # fmt: skip
    parameters = [p for net in nets.values() for p in net.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.05)
    steps = _EPOCHS * math.ceil(len(pictures) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for epoch in range(_EPOCHS):
        order = rng.permutation(len(pictures))
        for at in range(0, len(order), _BATCH):
            states, state_of, poses, pose_of = [], [], [], []
            for index in order[at : at + _BATCH]:
                # A picture that is cut is not to be taken for one that is turned.
                whole = rng.random() > 0.3
                seen = shaken(pictures[index] if whole else cut(pictures[index], rng), rng)
                for state in range(8):
                    shown = framed(guard.in_state(seen, state), rng)
                    states.append(small(shown))
                    state_of.append(state)
                for cropped in (0, 1) * _TAKES:
                    # Cut first: a tilt would give the new border away by its black corners.
                    take = shaken(cut(pictures[index], rng) if cropped else pictures[index], rng)
                    mirrored = int(rng.integers(2))
                    poses.append(small(take[:, ::-1] if mirrored else take))
                    pose_of.append((cropped, mirrored))
            scores = nets["state"](torch.tensor(np.stack(states)).flatten(1))
            loss = nn.functional.cross_entropy(scores, torch.tensor(state_of))
            scores = nets["pose"](torch.tensor(np.stack(poses)).flatten(1))
            loss = loss + nn.functional.binary_cross_entropy_with_logits(
                scores, torch.tensor(pose_of, dtype=torch.float32)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{_EPOCHS}: loss {loss.item():.3f}")
    arrays = {}
    for name, net in nets.items():
        for number, layer in enumerate((net[0], net[3]), 1):
            arrays[f"{name}_w{number}"] = layer.weight.detach().numpy().T
            arrays[f"{name}_b{number}"] = layer.bias.detach().numpy()
    flat = np.stack([small(p) for p in pictures]).reshape(len(pictures), -1)
    # Both sides of each: a patient with situs inversus is a frontal radiograph too.
    both = np.concatenate(
        [flat, np.stack([small(p[:, ::-1]) for p in pictures]).reshape(flat.shape)]
    )
    arrays["mean"] = both.mean(axis=0)
    arrays["components"] = np.linalg.svd(both - arrays["mean"], full_matrices=False)[2][:32]
    np.savez_compressed(out, **{k: v.astype(np.float16) for k, v in arrays.items()})
    print(f"{out}: {out.stat().st_size:,} bytes, from {len(pictures)} radiographs")


def kinds(values: Array) -> dict[str, guard.Notice]:
    """What the pixels alone give rise to, by kind."""
    return {n.kind: n for n in guard.examine(np.ascontiguousarray(values))}


def set_right(values: Array, state: int) -> bool:
    """Whether a radiograph that was brought into a state is brought back, exactly."""
    lying = np.ascontiguousarray(guard.in_state(values, state))
    back = guard.corrected(lying, guard.examine(lying))
    return back.shape == values.shape and bool(np.allclose(back, values, atol=1e-6))


def share(count: int, total: int) -> str:
    """«3 of 200, 1.5 % (0.5 to 4.3)», with Wilson's 95 % interval."""
    z, p = 1.959964, count / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    low, high = 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)
    return f"{count:,} of {total:,}, {100 * p:.1f} % ({low:.1f} to {high:.1f})"


def written_on(values: Array, rng: np.random.Generator) -> Array:
    """With a drawn line of 23 characters, 10 to 24 pixels high, near the upper or lower edge."""
    picture = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    size = int(rng.choice([10, 12, 16, 24]))
    upper = bool(rng.integers(2))
    at = int(rng.integers(4, 60)), 6 if upper else max(0, picture.height - size - 8)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(at, "DOE^JANE 1970 ID 123456", fill=255, font=font)
    return np.asarray(picture, dtype=np.float32) / 255


def score(studies: list[Study], others: list[Array]) -> None:
    """Print sensitivities and false alarms as Markdown."""
    rng = np.random.default_rng(_SEED)
    pictures = [s.pixels() for s in studies]
    plain = [kinds(p) for p in pictures]
    total = len(pictures)
    print(f"{total:,} frontal radiographs, as they are:\n\n| notice | false alarms |\n|---|---|")
    for kind in ("inverted", "turned", "non_frontal", "cropped", "mirrored"):
        print(f"| {kind} | {share(sum(kind in p for p in plain), total)} |")
    any_fix = sum(any(n.fixable for n in p.values()) for p in plain)
    print(f"| would be changed by --fix | {share(any_fix, total)} |")
    lettered = sum("burned_in" in p for p in plain)
    print(f"| burned_in (many do have letters) | {share(lettered, total)} |")
    print("\nThe same ones, changed by us:\n\n| what was done | noticed |\n|---|---|")

    def row(name: str, notice: str, change: Callable[[Array], Array], of: list[Array]) -> None:
        wanted = set(notice.split(" or "))
        found = [kinds(change(p)) for p in of]
        count = sum(not wanted.isdisjoint(f) for f in found)
        wrong = sum(any(n.fixable for n in f.values()) for f in found)
        print(f"| {name} | {share(count, len(of))} as {notice}; {wrong} would be turned wrongly |")

    for state in range(1, 8):
        name = " and ".join(
            [f"turned by {90 * (state // 2)}°"] * (state > 1) + ["inverted"] * (state % 2)
        )
        lying = [np.ascontiguousarray(guard.in_state(p, state)) for p in pictures]
        wanted = {"turned"} if state > 1 else {"inverted"}
        wanted |= {"inverted"} if state % 2 else set()
        seen = sum(kinds(p).keys() >= wanted for p in lying)
        print(f"| {name} | {share(seen, total)} |")
        back = sum(set_right(p, state) for p in pictures)
        print(f"| … and set right by --fix | {share(back, total)} |")
    small_ones = list(copies(studies))
    for edge, name in enumerate(("left", "top", "right", "bottom")):
        for lost in (0.3, 0.4, 0.5):
            edges = [0.0, 0.0, 1.0, 1.0]
            edges[edge] += lost if edge < 2 else -lost
            cut_off = functools.partial(_cut_off, edges=tuple(edges))
            row(
                f"{100 * lost:.0f} % cut off, {name}", "cropped or non_frontal", cut_off, small_ones
            )
    row("20 % cut off on all sides", "cropped or non_frontal", _middle, small_ones)
    row("mirrored", "mirrored", lambda p: p[:, ::-1], pictures)
    row("a detail, a ninth of it", "non_frontal", _detail, small_ones)
    bare = [p for p, said in zip(pictures, plain, strict=True) if "burned_in" not in said]
    row("a line of text drawn on it", "burned_in", lambda p: written_on(p, rng), bare)
    if others:
        found = sum("non_frontal" in kinds(p) for p in others)
        print(f"| other pictures than chests | {share(found, len(others))} |")
    print("\nChanged by --fix though upright and bone bright:")
    for study, said in zip(studies, plain, strict=True):
        if any(n.fixable for n in said.values()):
            print(f"  {study.path.name}: {', '.join(said)}")


def _cut_off(picture: Array, *, edges: tuple[float, float, float, float]) -> Array:
    return window(picture, *edges)


def _middle(picture: Array) -> Array:
    return window(picture, 0.2, 0.2, 0.8, 0.8)


def _detail(picture: Array) -> Array:
    return window(picture, 0.1, 0.3, 0.43, 0.63)


def readable(folder: Path) -> list[Array]:
    """All pictures of a folder that can be read and are 32 pixels a side, each once."""
    found: dict[bytes, Array] = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(ImageError), warnings.catch_warnings(action="ignore"):
            values = read_image(path) if path.is_file() else np.zeros((1, 1), np.float32)
            if min(values.shape) >= 32:
                found.setdefault(thumbnail(values).tobytes(), values)
    return list(found.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("verb", choices=("train", "score"))
    parser.add_argument("data", nargs="?", type=Path, default=BUNDLED)
    parser.add_argument("--split", default="dev", choices=("dev", "test"))
    parser.add_argument("--others", type=Path, help="folder of pictures that are no chests")
    asked = parser.parse_args()
    if asked.verb == "train":
        studies = [s for s in by_split(read_index(asked.data), "pretrain") if may_ship(s)]
        train(studies, PACKAGE / "images" / "guard.npz")
    else:
        score(
            by_split(read_index(asked.data), asked.split),
            readable(asked.others) if asked.others else [],
        )
