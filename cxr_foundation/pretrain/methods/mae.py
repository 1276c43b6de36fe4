"""MAE: an encoder that sees a few patches, and a small decoder that draws the others.

Written from the paper: He et al., "Masked Autoencoders Are Scalable Vision Learners"
(arXiv 2111.06377). Two differences: position embeddings of the encoder are timm's own, which are
learned; the decoder's are the paper's fixed sines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from cxr_foundation.pretrain.distributed import from_first, own_rows, world_size
from cxr_foundation.pretrain.heads import drawn_from
from cxr_foundation.pretrain.method import METHODS, Method
from cxr_foundation.pretrain.reconstruct import looked_at

__all__ = ["Mae", "MaeSettings", "patches", "picture"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaeSettings:
    """What MAE adds to an encoder.

    Attributes:
        hidden: Part of the patches that the encoder does not see.
        normalise: Whether each patch that is drawn has mean 0 and variance 1, so that its texture
            counts and not its grey.
        decoder_width: Of the decoder's tokens.
        decoder_depth: Number of its blocks.
        decoder_heads: Of its attention.
    """

    hidden: float = 0.75
    normalise: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise ValueError(f"hidden: {self.hidden!r} is not within (0, 1)")
        for name in ("decoder_width", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not above 0")
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            reason = (
                f"{self.decoder_width} is no multiple of 4 and of the {self.decoder_heads} heads"
            )
            raise ValueError(f"decoder_width: {reason}")


def patches(images: torch.Tensor, side: tuple[int, int]) -> torch.Tensor:
    """(N, C, h, w) → (N, L, p * q * C): patches of p x q pixels, row by row."""
    n, c, h, w = images.shape
    p, q = side
    grid = images.reshape(n, c, h // p, p, w // q, q)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, p * q * c)


def picture(patches: torch.Tensor, side: tuple[int, int], size: torch.Size) -> torch.Tensor:
    """The inverse of `patches`: (N, L, p * q * C) → (N, C, h, w), where `size` is (h, w)."""
    (n, _, _), (p, q), (h, w) = patches.shape, side, size
    grid = patches.reshape(n, h // p, w // q, p, q, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, h, w)


@METHODS.register("mae")
class Mae(Method):
    """MAE around a vision transformer."""

    title = "MAE"
    paper = "arXiv 2111.06377"
    Settings = MaeSettings
    full_views = 1

    positions: torch.Tensor

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        settings: MaeSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder)
        self.settings = settings
        self.side: tuple[int, int] = encoder.patch_embed.patch_size
        grid = (view[1] // self.side[0], view[2] // self.side[1])
        self.visible = max(1, int(math.prod(grid) * (1 - settings.hidden)))
        width = settings.decoder_width
        with drawn_from(generator):
            self.embed = nn.Linear(encoder.num_features, width)
            self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            self.decoder = nn.Sequential(
                *(
                    Block(width, settings.decoder_heads, qkv_bias=True, norm_layer=nn.LayerNorm)
                    for _ in range(settings.decoder_depth)
                ),
                nn.LayerNorm(width),
            )
            self.predict = nn.Linear(width, math.prod(self.side) * view[0])
            for part in (self.embed, self.predict, *self.decoder.modules()):
                if isinstance(part, nn.Linear):
                    nn.init.xavier_uniform_(part.weight)
                    nn.init.zeros_(part.bias)
        self.register_buffer("positions", _sines(grid, width), persistent=False)

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: MaeSettings,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Mae:
        """See `Method.build`.

        Raises:
            ValueError: The encoder is no plain vision transformer, or the view is not whole
                patches, two at least.
        """
        if not isinstance(encoder, VisionTransformer):
            raise ValueError(
                f"method.name: MAE hides tokens of a plain vision transformer, and "
                f"{type(encoder).__name__} is none; gmml and sit take every encoder"
            )
        p, q = encoder.patch_embed.patch_size
        if view[1] % p or view[2] % q or view[1] * view[2] < 2 * p * q:
            reason = f"{list(view[1:])} is not two or more whole patches of {p} x {q}"
            raise ValueError(f"views.size: {reason}")
        return cls(encoder, settings=settings, view=view, generator=generator)

    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: One, (N, C, h, w).
            draw: Seed of which patches are hidden.
            patients: Not used.

        Returns:
            "loss", the mean squared error over the hidden patches; "features" of the others.
        """
        (images,) = views
        order = self._order(images, draw)
        encoded = self._encode(images, order[:, : self.visible])
        target = _rows(patches(images, self.side).float(), order[:, self.visible :])
        if self.settings.normalise:
            mean, std = _moments(target)
            target = (target - mean) / std
        loss = F.mse_loss(self._decode(encoded, order).float(), target)
        network: Any = self.encoder
        pooled: torch.Tensor = network.forward_head(encoded.detach(), pre_logits=True)
        return {"loss": loss, "features": pooled.detach()}

    def _order(self, images: torch.Tensor, draw: int) -> torch.Tensor:
        """int64 (N, L): the patches of each picture in random order, visible ones first."""
        generator = torch.Generator(images.device).manual_seed(from_first(draw, like=images))
        shape = (len(images) * world_size(), self.positions.shape[1])
        return own_rows(torch.rand(shape, generator=generator, device=images.device).argsort(1))

    def _encode(self, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The encoder's tokens (N, prefix + V, D), of a picture's `visible` patches alone."""
        network: Any = self.encoder
        # timm adds positions for every patch; patches are left out after they know their place.
        tokens = network._pos_embed(network.patch_embed(images))
        prefix = network.num_prefix_tokens
        tokens = torch.cat([tokens[:, :prefix], _rows(tokens[:, prefix:], visible)], dim=1)
        tokens = network.norm_pre(tokens)
        if network.grad_checkpointing:
            tokens = checkpoint_seq(network.blocks, tokens)
        else:
            tokens = network.blocks(tokens)
        encoded: torch.Tensor = network.norm(tokens)
        return encoded

    def _decode(self, encoded: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """(N, L - V, p * q * C): the hidden patches in `order`."""
        tokens = self.embed(encoded)
        prefix, hidden = tokens.shape[1] - self.visible, order.shape[1] - self.visible
        masks = self.mask_token.to(tokens.dtype).expand(len(tokens), hidden, -1)
        # Attention does not mind the order, so that nothing has to be put back.
        positions = _rows(self.positions.expand(len(tokens), -1, -1), order)
        tokens = torch.cat([tokens, masks], dim=1) + F.pad(positions, (0, 0, prefix, 0))
        drawn: torch.Tensor = self.predict(self.decoder(tokens)[:, -hidden:])
        return drawn

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """The view, what the encoder sees of it, and the rest as it is drawn."""
        images = views[0]
        order = self._order(images, draw)
        with looked_at(self):
            drawn = self._decode(self._encode(images, order[:, : self.visible]), order).float()
        whole, hidden = patches(images, self.side), order[:, self.visible :]
        if self.settings.normalise:
            mean, std = _moments(_rows(whole, hidden))
            drawn = drawn * std + mean
        index = hidden[..., None].expand_as(drawn)
        shown = {"masked": torch.zeros_like(drawn), "output": drawn}
        size = images.shape[-2:]
        return {"input": images} | {
            name: picture(whole.scatter(1, index, content.to(whole.dtype)), self.side, size)
            for name, content in shown.items()
        }


def _rows(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N, L, D) and int64 (N, V) → (N, V, D)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def _moments(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each patch, (N, L, 1) each; the latter is never 0."""
    # As the paper's code has it: without it a patch of one grey would be divided by nothing.
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def _sines(grid: tuple[int, int], width: int) -> torch.Tensor:
    """(1, L, width): a quarter each for sine and cosine, of row and column."""
    rate = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    angles = [place.flatten()[:, None] * rate for place in (columns, rows)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()[None]
