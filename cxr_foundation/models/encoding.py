"""An encoder made ready for many pictures: precision, memory layout, batch normalisation folded."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from cxr_foundation.errors import CheckpointError

__all__ = ["Encoding", "Precision", "folded"]

Precision = Literal["float32", "bfloat16"]

# Of the largest feature. Folding rounds each weight once more; a wrong fold is off by far more.
_FOLD_ERROR = 1e-4


class Encoding:
    """Turns prepared pixels into pooled features.

    Args:
        model: An encoder: (B, C, H, W) → (B, D). It is moved to the device and put in eval mode.
        device: None takes a GPU if there is one.
        precision: "bfloat16" computes by autocast: faster where the machine has instructions for
            it, and off by about 1 % of a feature.

    Attributes:
        device: Where it computes.
        layout: Memory format that its pixels are brought to.
        model: The encoder.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        self._precision = precision
        convolutional = sum(isinstance(m, nn.Conv2d) for m in model.modules()) > 4
        # Convolutions prefer channels last; a transformer has but one, and is slower so.
        self.layout = torch.channels_last if convolutional else torch.contiguous_format

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pooled features.

        Args:
            pixels: float32 (B, C, H, W).

        Returns:
            float32 (B, D) on the CPU.

        Raises:
            CheckpointError: The model does not give one vector for each radiograph.
        """
        lower = self._precision == "bfloat16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=lower),
        ):
            found = self.model(pixels.to(self.device, memory_format=self.layout))
        if not isinstance(found, torch.Tensor) or found.ndim != 2:
            raise CheckpointError(
                type(self.model).__name__,
                "does not give one vector for each radiograph",
                "Build it with num_classes=0 and its pooling.",
            )
        return found.float().cpu()


def folded(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy in which each batch normalisation is part of the convolution before it.

    Which convolution is before it is observed, not guessed from names: while the model sees the
    example, a normalisation that is fed exactly what a convolution gave belongs to that one. The
    copy is handed out only if it gives the same features.

    Args:
        model: An encoder in eval mode.
        example: (B, C, H, W), anything the model takes.

    Returns:
        The copy; `model` itself where there is nothing to fold or folding does not hold.
    """
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        pairs = _pairs(twin, example)
    if not pairs:
        return model
    for name, convolution, norm in pairs:
        _fold(convolution, norm)
        after = [m for m in (getattr(norm, "drop", None), getattr(norm, "act", None)) if m]
        twin.set_submodule(name, nn.Sequential(*after) if after else nn.Identity())
    twin.eval()
    with torch.inference_mode():
        try:
            before, after_fold = model(example), twin(example)
        except (AttributeError, TypeError):
            # The network asks its normalisation for more than its output.
            return model
    error = (before - after_fold).abs().max()
    return twin if error <= _FOLD_ERROR * before.abs().max() else model


def _pairs(model: nn.Module, example: torch.Tensor) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """(name of the normalisation, convolution, normalisation) as they follow one another."""
    # Kept alive until the end, so that no later tensor can have the same identity.
    made: list[tuple[torch.Tensor, nn.Conv2d]] = []
    pairs: list[tuple[str, nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[nn.Module, int] = {}
    names = {m: n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}

    def after(module: nn.Conv2d, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made.append((output, module))

    def before(module: nn.BatchNorm2d, args: tuple[torch.Tensor]) -> None:
        calls[module] = calls.get(module, 0) + 1
        pairs.extend((names[module], c, module) for output, c in made[-1:] if output is args[0])

    hooks = [m.register_forward_hook(after) for m in model.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before) for m in names]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    # One that is used twice, with another partner perhaps, keeps its own numbers.
    return [(n, c, m) for n, c, m in pairs if calls[c] == calls[m] == 1 and _foldable(m)]


def _foldable(norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None and norm.running_var is not None


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Weight w·g/√(v+ε) and bias (b − m)·g/√(v+ε) + β, worked out in float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = -norm.running_mean.double() * scale
        if convolution.bias is not None:
            bias = bias + convolution.bias.double() * scale
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        weight = convolution.weight.double() * scale[:, None, None, None]
        dtype = convolution.weight.dtype
        convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
