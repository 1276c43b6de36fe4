"""Pooled features of many radiographs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sized

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from cxr_foundation.errors import CheckpointError, NoImages
from cxr_foundation.images.processor import Processor, Radiograph

__all__ = ["embed"]


def embed(
    model: nn.Module,
    processor: Processor,
    images: Iterable[Radiograph],
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> npt.NDArray[np.float32]:
    """Pooled features of radiographs, in their order.

    Args:
        model: An encoder: (B, C, H, W) → (B, D). It is moved to the device and put in eval mode
            while it runs; afterwards it is in the mode that it was in.
        processor: Of the same checkpoint.
        images: N paths, arrays, Pillow images or tensors.
        batch_size: Radiographs per pass.
        device: None takes a GPU if there is one.
        progress: Show a bar.

    Returns:
        float32 (N, D).

    Raises:
        NoImages: There is none.
        ImageError: A radiograph that cannot be used.
        CheckpointError: The model does not give one vector for each radiograph.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    layout = torch.channels_last if _is_convolutional(model) else torch.contiguous_format
    total = len(images) if isinstance(images, Sized) else None
    training = model.training
    features: list[torch.Tensor] = []
    model.to(place).eval()
    try:
        with (
            torch.inference_mode(),
            tqdm(total=total, disable=not progress, unit="image") as bar,
        ):
            for batch in _batches(images, batch_size):
                pixels = processor(batch)["pixel_values"].to(place, memory_format=layout)
                found = model(pixels)
                if not isinstance(found, torch.Tensor) or found.ndim != 2:
                    reason = "does not give one vector for each radiograph"
                    raise CheckpointError(
                        type(model).__name__, reason, "Build it with num_classes=0 and its pooling."
                    )
                features.append(found.float().cpu())
                bar.update(len(batch))
    finally:
        model.train(training)
    if not features:
        raise NoImages("images", "there is none", "Pass at least one radiograph.")
    array: npt.NDArray[np.float32] = torch.cat(features).numpy()
    return array


def _batches(images: Iterable[Radiograph], size: int) -> Iterator[list[Radiograph]]:
    if isinstance(images, str | os.PathLike):
        raise NoImages(images, "is one path, not several", "Pass a list of paths.")
    rest = iter(images)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _is_convolutional(model: nn.Module) -> bool:
    """Whether most of the work is convolutions, which prefer channels last."""
    return sum(isinstance(m, nn.Conv2d) for m in model.modules()) > 4
