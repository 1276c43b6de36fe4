"""What the layouts of Swin Transformers share: tables to leave out, old names, the image size.

Microsoft's files, timm's before 0.9 and Ark's merge patches at the end of a stage
(`layers.0.downsample` … `layers.2.downsample`), timm's since then at the beginning of the next
(`layers.1.downsample` … `layers.3.downsample`):
https://github.com/huggingface/pytorch-image-models/blob/v1.0.20/timm/models/swin_transformer.py,
`checkpoint_filter_fn`. The order of the four neighbours that are merged is the same in both.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from cxr_foundation.convert.keymap import Drop, Make, Network, Shapes
from cxr_foundation.convert.networks import network_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COMPUTED_TABLES", "MERGING_AT_THE_BEGINNING", "network_with_image_size"]

# Tables that follow from the size of window and image; timm has not saved them since 0.9.
COMPUTED_TABLES = Drop("computed tables", r".+\.(relative_position_index|attn_mask)")

_PATCH = 4  # pixels; every stock Swin Transformer has patches of this size


def _nth(n: int, /, *parts: Tensor) -> Tensor:
    return parts[n]


# A Make, because it acts on nothing but a whole set: `layers.0.downsample` is in old files alone,
# while `layers.1.downsample` is in both and means two things.
MERGING_AT_THE_BEGINNING = Make(
    parts=(
        r"layers\.0\.downsample\.(.+)",
        r"layers.1.downsample.\1",
        r"layers.2.downsample.\1",
    ),
    gives={rf"layers.{n + 1}.downsample.\1": functools.partial(_nth, n) for n in range(3)},
)


def network_with_image_size(shapes: Shapes) -> Network | None:
    """The stock network, with the image size where the file's own tables tell it.

    Nothing else of a Swin Transformer depends on the image, so that Ark+, trained on 768 pixels,
    has the tensors of the network for 384.

    Args:
        shapes: Sizes by encoder name, and those of the file's `attn_mask` (windows, area, area)
            by any name that ends in one: the first stage has (side of the patches / side of a
            window)² windows.

    Returns:
        As `network_of`; None if the tensors are no Swin Transformer's or the tables are not
        there, not square, or those of the network's own image size.
    """
    if "layers.0.blocks.0.attn.relative_position_bias_table" not in shapes:
        return None
    found = network_of(shapes)
    masks = {s for name, s in shapes.items() if name.endswith("layers.0.blocks.1.attn_mask")}
    if found is None or len(masks) != 1:
        return None
    windows, area, *_ = next(iter(masks))
    pixels = math.isqrt(windows) * math.isqrt(area) * _PATCH
    if math.isqrt(windows) ** 2 != windows or found[0].endswith(f"_{pixels}"):
        return None
    return found[0], {**found[1], "img_size": pixels}
