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

from cxr_foundation.errors import NoImages
from cxr_foundation.images.processor import Processor, Radiograph
from cxr_foundation.models.encoding import Encoding, Precision

__all__ = ["embed"]


def embed(
    model: nn.Module,
    processor: Processor,
    images: Iterable[Radiograph],
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
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
        precision: "bfloat16" is faster, and off by about 1 % of a feature.
        progress: Show a bar.

    Returns:
        float32 (N, D).

    Raises:
        NoImages: There is none.
        ImageError: A radiograph that cannot be used.
        CheckpointError: The model does not give one vector for each radiograph.
    """
    total = len(images) if isinstance(images, Sized) else None
    training = model.training
    features: list[torch.Tensor] = []
    encoding = Encoding(model, device=device, precision=precision)
    try:
        with tqdm(total=total, disable=not progress, unit="image") as bar:
            for batch in _batches(images, batch_size):
                features.append(encoding(processor(batch)["pixel_values"]))
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
