"""Random views of radiographs, drawn from (seed, epoch, picture, view) and nothing else.

No random state is carried from one batch to the next, so a run that is cut off and resumed sees
the very same views. Crop, zoom, shift, rotation, flip and lens distortion are one resampling; the
blur is separable; brightness and contrast are one multiply-add; saturation, hue and grey are one
matrix.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cxr_foundation.pretrain.view_config import Range, ViewConfig

__all__ = ["ViewConfig", "Views"]


# One slot of uniform numbers per parameter: a new parameter at the end moves no other.
_SLOTS = (
    "area ratio left top affine zoom shift_x shift_y rotation distort distortion flip jitter "
    "brightness contrast gamma_on gamma blur_on blur noise_on noise "
    "solarize grain saturation hue grey"
).split()

# Rows: luma (ITU-R BT.601) and the two axes of colour of NTSC's YIQ, as its FCC 1953 definition
# rounds them: https://en.wikipedia.org/wiki/YIQ
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)

# Pixels of views that are worked on together on a CPU: more would not stay in its cache.
_CACHED = 2**15

# Normal numbers from which the noise of every view is a stretch; more than one view holds.
_GRAINS = 2**22

# Numbers of each name, one per picture.
Drawn = dict[str, NDArray[np.float64]]


class Views:
    """Makes batches of views: (N, H, W) or (N, 3, H, W) pictures → (N, C, h, w), normalised.

    What is random is drawn on the host; the pixels are worked on where the pictures lie. On a GPU
    no step waits for the host; on a CPU one picture after the other stays in the cache.

    Args:
        config: How strongly a view may differ.
        size: (height, width) of a view in pixels. A picture should be at most 1.5 times as large,
            since the resampling is bilinear without a low-pass.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        seed: Seed of the whole run.
    """

    def __init__(
        self,
        config: ViewConfig,
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> None:
        self.config = config
        self.size = size
        self.seed = seed
        self._mean = torch.tensor(mean).view(1, -1, 1, 1)
        self._std = torch.tensor(std).view(1, -1, 1, 1)

    def __call__(
        self, pictures: torch.Tensor, *, epoch: int, indices: Sequence[int], view: int
    ) -> torch.Tensor:
        """One view of every picture.

        Args:
            pictures: uint8 or uint16 over the full range, or float32 in [0, 1]; (N, H, W), or
                (N, 3, H, W) in red, green and blue.
            epoch: Epoch, from 0.
            indices: Number of each picture in the data set: a view does not depend on its batch.
            view: 0 for the query, 1 for the key.

        Returns:
            float32 (N, C, h, w) on the device of the pictures.
        """
        if pictures.ndim == 3:
            pictures = pictures[:, None]
        pictures = self._framed(pictures)
        drawn = [_generator(self.seed, epoch, i, view).random(len(_SLOTS)) for i in indices]
        u = dict(zip(_SLOTS, np.stack(drawn, axis=1), strict=True))
        device = pictures.device
        numbers = _Numbers.on(
            device,
            {
                **self._geometry(u, pictures.shape[-2], pictures.shape[-1]),
                **self._intensities(u),
                **(self._colours(u) if pictures.shape[1] == 3 else {}),
            },
        )
        mean, std = self._mean.to(device), self._std.to(device)
        channels = max(mean.shape[1], pictures.shape[1])
        views = torch.empty(len(pictures), channels, *self.size, device=device)
        step = len(pictures)
        if device.type == "cpu":
            step = max(1, _CACHED // (self.size[0] * self.size[1]))
        for start in range(0, len(pictures), step):
            part = slice(start, start + step)
            own = numbers.part(part)
            x = _changed(_smoothed(self._resampled(pictures[part], own), own), own)
            torch.sub(x, mean, out=views[part]).div_(std)
        return views

    def _framed(self, pictures: torch.Tensor) -> torch.Tensor:
        sides = [round(self.config.border * n) for n in pictures.shape[-2:]]
        if not any(sides):
            return pictures
        framed = torch.zeros_like(pictures)
        down, across = (slice(b, n - b) for b, n in zip(sides, pictures.shape[-2:], strict=True))
        framed[..., down, across] = pictures[..., down, across]
        return framed

    def _geometry(self, u: Drawn, rows: int, columns: int) -> Drawn:
        """Where views come from, in pictures whose sides are [-1, 1]."""
        c = self.config
        area = _between(c.crop_area, u["area"])
        ratio = np.exp(_between((math.log(c.crop_ratio[0]), math.log(c.crop_ratio[1])), u["ratio"]))
        affine = u["affine"] < c.affine_p
        bend = np.where(
            u["distort"] < c.distortion_p, (2 * u["distortion"] - 1) * c.distortion, 0.0
        )
        straight = ~affine & (bend == 0)
        wide, left = _stretch(np.sqrt(area * ratio), u["left"], columns, whole=straight)
        high, top = _stretch(np.sqrt(area / ratio), u["top"], rows, whole=straight)
        width, height = wide / columns, high / rows
        zoom = np.where(affine, 1 + _between(c.zoom, u["zoom"]), 1.0)
        x0 = 2 * left / columns + width - 1 + affine * (2 * u["shift_x"] - 1) * 2 * c.shift
        y0 = 2 * top / rows + height - 1 + affine * (2 * u["shift_y"] - 1) * 2 * c.shift
        angle = affine * (2 * u["rotation"] - 1) * math.radians(c.rotation)
        mirror = np.where(u["flip"] < c.flip_p, -1.0, 1.0)
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        xx, xy, yx, yy = mirror * width * cos, -height * sin, mirror * width * sin, height * cos
        reach_x, reach_y = abs(xx) + abs(xy) + abs(x0), abs(yx) + abs(yy) + abs(y0)
        bent = 1 + np.maximum(bend, 0) * (reach_x**2 + reach_y**2)
        # Within the centres of the outermost pixels no border rule is needed, which is faster.
        inside = (reach_x * bent <= 1 - 1 / columns) & (reach_y * bent <= 1 - 1 / rows)
        placed = {"wide": wide, "left": left, "high": high, "top": top, "mirror": mirror}
        rules = {"straight": straight * 1.0, "inside": inside * 1.0, "bend": bend}
        return {**placed, **rules, "xx": xx, "xy": xy, "x0": x0, "yx": yx, "yy": yy, "y0": y0}

    def _intensities(self, u: Drawn) -> Drawn:
        c = self.config
        blurred, crisp = u["blur_on"] < c.blur_p, u["blur_on"] >= 1 - c.sharpen_p
        jitter = u["jitter"] < c.jitter_p
        gain = np.where(jitter, 1 + (2 * u["contrast"] - 1) * c.contrast, 1.0)
        offset = np.where(jitter, (2 * u["brightness"] - 1) * c.brightness, 0.0)
        gamma = np.exp(_between((math.log(c.gamma[0]), math.log(c.gamma[1])), u["gamma"]))
        return {
            "sigma": np.where(crisp, 1.0, np.where(blurred, _between(c.blur, u["blur"]), 0.0)),
            # A view moves all the way to its smooth copy, or some way off it.
            "smooth": np.where(crisp, -_between(c.sharpen, u["blur"]), blurred * 1.0),
            "gain": gain,
            # Contrast turns about mid-grey, so that it does not change the brightness too.
            "offset": offset + 0.5 * (1 - gain),
            "gamma": np.where(u["gamma_on"] < c.gamma_p, gamma, 1.0),
            "solarize": (u["solarize"] < c.solarize_p) * 1.0,
            "noise": np.where(u["noise_on"] < c.noise_p, _between(c.noise, u["noise"]), 0.0),
            "grain": u["grain"],
        }

    def _colours(self, u: Drawn) -> Drawn:
        """Entries of a matrix on (red, green, blue): c00, c01 … c22."""
        c = self.config
        jitter = u["jitter"] < c.jitter_p
        kept = np.where(jitter, 1 + (2 * u["saturation"] - 1) * c.saturation, 1.0)
        kept = np.where(u["grey"] < c.grayscale_p, 0.0, kept)
        turn = jitter * (2 * u["hue"] - 1) * 2 * math.pi * c.hue
        plane = np.zeros((len(kept), 3, 3))
        plane[:, 0, 0] = 1
        plane[:, 1, 1] = plane[:, 2, 2] = kept * np.cos(turn)
        plane[:, 2, 1] = kept * np.sin(turn)
        plane[:, 1, 2] = -plane[:, 2, 1]
        matrix = _RGB @ plane @ _YIQ
        return {f"c{i}{j}": matrix[:, i, j] for i in range(3) for j in range(3)}

    def _resampled(self, pictures: torch.Tensor, own: _Numbers) -> torch.Tensor:
        """(n, C, H, W) pictures → float32 (n, C, h, w) in [0, 1]."""
        top, left, high, wide = (int(own.host[k][0]) for k in ("top", "left", "high", "wide"))
        if len(pictures) == 1 and own.host["straight"][0] and _shrinks((high, wide), self.size):
            box = pictures[..., top : top + high, left : left + wide]
            x = F.interpolate(box.float(), self.size, mode="bilinear", align_corners=False)
            x = x.flip(-1) if own.host["mirror"][0] < 0 else x
        else:
            x = F.grid_sample(
                pictures.float(),
                self._grid(own, pictures.device),
                mode="bilinear",
                padding_mode="zeros" if own.host["inside"].all() else "reflection",
                align_corners=False,
            )
        return x if pictures.is_floating_point() else x.div_(torch.iinfo(pictures.dtype).max)

    def _grid(self, own: _Numbers, device: torch.device) -> torch.Tensor:
        """Where each pixel of the views comes from: float32 (n, h, w, 2) in [-1, 1]."""
        down, across = (_pixel_centres(n, device) for n in self.size)
        # Rows and columns are added by broadcasting: torch's affine_grid is a matrix product over
        # every pixel. Each coordinate is a plane of its own, which is written twice as fast.
        planes = torch.empty(len(own.host["bend"]), 2, *self.size, device=device)
        for axis, (x, y, offset) in enumerate((("xx", "xy", "x0"), ("yx", "yy", "y0"))):
            column = own[y] * down[:, None] + own[offset]
            torch.add(column, own[x] * across, out=planes[:, axis : axis + 1])
        if own.host["bend"].any():
            to_right, to_bottom = planes[:, :1], planes[:, 1:]
            radius2 = torch.addcmul(to_right * to_right, to_bottom, to_bottom)
            planes.mul_(radius2.mul_(own["bend"]).add_(1))
        return planes.permute(0, 2, 3, 1)


class _Numbers:
    """One number of each name per picture: on the host to decide by, on the device to work with."""

    def __init__(self, host: Drawn, table: torch.Tensor) -> None:
        self.host = host
        self._table = table

    @classmethod
    def on(cls, device: torch.device, host: Drawn) -> _Numbers:
        # One copy to the device, whatever the number of names.
        return cls(host, torch.from_numpy(np.stack(list(host.values()))).float().to(device))

    def part(self, pictures: slice) -> _Numbers:
        """The numbers of some of the pictures."""
        host = {name: values[pictures] for name, values in self.host.items()}
        return _Numbers(host, self._table[:, pictures])

    def __getitem__(self, name: str) -> torch.Tensor:
        """Float32 (n, 1, 1, 1)."""
        return self._table[list(self.host).index(name)].view(-1, 1, 1, 1)


def _smoothed(x: torch.Tensor, own: _Numbers) -> torch.Tensor:
    """Blurred, sharpened or left alone; a Gaussian's borders are reflected."""
    amount, sigma = own.host["smooth"], own.host["sigma"]
    if not amount.any():
        return x
    radius = min(math.ceil(3 * sigma.max()), min(x.shape[-2:]) - 1)
    taps = torch.from_numpy(_half_gaussians(sigma, radius)).float().to(x.device)
    smooth = x
    for side in (-2, -1):
        pad = (radius, radius, 0, 0) if side == -1 else (0, 0, radius, radius)
        padded, n = F.pad(smooth, pad, mode="reflect"), x.shape[side]
        smooth = smooth * taps[0]
        pair = torch.empty_like(smooth)
        for k in range(1, radius + 1):
            before, after = (padded.narrow(side, radius + way, n) for way in (-k, k))
            smooth.addcmul_(torch.add(before, after, out=pair), taps[k])
    return smooth if (amount == 1).all() else torch.lerp(x, smooth, own["smooth"])


def _half_gaussians(sigma: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """The middle tap and those to one side, (radius + 1, n, 1, 1, 1); none beyond 3 sigma."""
    steps = np.arange(radius + 1)[:, None]
    scaled = steps / np.maximum(sigma, 1e-6)
    taps = np.where(steps <= np.ceil(3 * sigma), np.exp(-0.5 * scaled**2), 0.0)
    taps /= taps[0] + 2 * taps[1:].sum(0)
    return taps[:, :, None, None, None]


def _changed(x: torch.Tensor, own: _Numbers) -> torch.Tensor:
    """Colours, brightness, contrast, gamma, solarisation and noise, in this order."""
    if "c00" in own.host:
        rows = [[own[f"c{i}{j}"] for j in range(3)] for i in range(3)]
        matrix = torch.cat([torch.cat(row, 2) for row in rows], 1).view(-1, 3, 3)
        x = torch.bmm(matrix, x.flatten(2)).view_as(x)
    if (own.host["gain"] != 1).any() or own.host["offset"].any():
        x = x.mul_(own["gain"]).add_(own["offset"])
    x = x.clamp_(0, 1)
    if (own.host["gamma"] != 1).any():
        x = x.pow_(own["gamma"])
    if own.host["solarize"].any():
        x = torch.where((x >= 0.5) & (own["solarize"] > 0), 1 - x, x)
    if own.host["noise"].any():
        x = x.addcmul_(_noise(x, own), own["noise"]).clamp_(0, 1)
    return x


def _noise(x: torch.Tensor, own: _Numbers) -> torch.Tensor:
    count = x[0].numel()
    grains = _grains(max(_GRAINS, 2 * count), x.device)
    starts = (own.host["grain"] * (len(grains) - count)).astype(int).tolist()
    return torch.stack([grains.narrow(0, start, count) for start in starts]).view_as(x)


@functools.lru_cache(maxsize=2)
def _grains(count: int, device: torch.device) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(device)


def _generator(seed: int, epoch: int, index: int, view: int) -> np.random.Generator:
    # Philox is counter-based: (seed, epoch, index, view) is the state itself, nothing is hashed.
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, view, index, epoch]))


def _stretch(
    part: NDArray[np.float64], u: NDArray[np.float64], side: int, *, whole: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Length and start of a crop along one side, in pixels; without a fraction where asked."""
    length = np.minimum(part, 1.0) * side
    length = np.where(whole, np.maximum(np.round(length), 1), length)
    start = u * (side - length)
    return length, np.where(whole, np.round(start), start)


def _shrinks(box: tuple[int, int], size: tuple[int, int]) -> bool:
    # An enlarged box would need the pixels around it.
    return box[0] >= size[0] and box[1] >= size[1]


def _between(bounds: Range, u: NDArray[np.float64]) -> NDArray[np.float64]:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _pixel_centres(n: int, device: torch.device) -> torch.Tensor:
    """(n,) centres of n pixels that fill [-1, 1]."""
    return (torch.arange(n, dtype=torch.float32, device=device) + 0.5) * (2 / n) - 1
