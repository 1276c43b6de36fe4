"""What a method is asked and answers, as a picture of those radiographs that may be shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cxr_foundation.contract import InputContract
from cxr_foundation.data import Sample, Study
from cxr_foundation.data.site import check_file
from cxr_foundation.errors import CxrError
from cxr_foundation.images import guard
from cxr_foundation.pretrain.method import Method
from cxr_foundation.pretrain.pictures import Batches

__all__ = ["illustrated", "those_that_may_be_shown"]

# Pixels between two pictures, and how bright they are.
_GAP, _WHITE = 4, 1.0


def illustrated(
    model: Method, batches: Batches, numbers: Sequence[int], *, contract: InputContract
) -> tuple[list[str], Image.Image] | None:
    """Draw what a method makes of some radiographs, always from the same views.

    Args:
        model: In evaluation mode.
        batches: Makes the views.
        numbers: Of the radiographs.
        contract: Its mean and std turn a view back into pixels.

    Returns:
        The names of the columns ("input", "masked", "output") and a picture with one row for each
        radiograph; None if there is nothing to show.
    """
    if not numbers:
        return None
    batch = batches([(0, number) for number in numbers])
    if "refused" in batch:
        return None
    device = next(model.parameters()).device
    drawn = model.illustrate([view.to(device) for view in batch["views"]], draw=batch["draw"])
    if not drawn:
        return None
    size = next(iter(drawn.values())).shape[-2:]
    columns = [_pixels(images, contract, (size[0], size[1])) for images in drawn.values()]
    rows = [np.concatenate([c[row] for c in columns], axis=1) for row in range(len(columns[0]))]
    grid = np.concatenate(rows, axis=0)[:-_GAP, :-_GAP]
    grey = grid[..., 0] if grid.shape[-1] == 1 else grid
    return list(drawn), Image.fromarray(np.rint(grey * 255).astype(np.uint8))


def those_that_may_be_shown(studies: Sequence[Study], *, most: int, among: int) -> list[int]:
    """Numbers of up to `most` radiographs that may be shown.

    Args:
        studies: Radiographs.
        most: How many are wanted.
        among: How many are looked at, spread over all of them.
    """
    spread = np.linspace(0, len(studies) - 1, among).astype(int)
    shown: list[int] = []
    for number in dict.fromkeys(spread.tolist()):
        if len(shown) < most and _may_be_shown(studies[number]):
            shown.append(number)
    return shown


def _may_be_shown(study: Study) -> bool:
    """Whether it was read and has no letters in its pixels, by header or by looks.

    A shard's sample is looked at as it is: it has no header, and letters that were made too small
    to be seen are too small to be read.
    """
    if not isinstance(study, Sample):
        checked = check_file(study.path)
        return not checked.refused and guard.may_be_shown(checked.notices)
    try:
        return guard.may_be_shown(guard.examine(study.pixels()))
    except CxrError:
        return False


def _pixels(
    images: torch.Tensor, contract: InputContract, size: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Normalised (N, C, h, w) → float32 (N, H + gap, W + gap, 1 or 3) in [0, 1]."""
    images = images.detach().float().cpu()
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size)
    mean, std = (torch.tensor(v)[:, None, None] for v in (contract.mean, contract.std))
    values = (images * std + mean).clamp(0, 1)
    values = F.pad(values, (0, _GAP, 0, _GAP), value=_WHITE)
    return values.permute(0, 2, 3, 1).contiguous().numpy()
