"""What a self-supervised method is: a module that owns all of its state, and a loss over views.

A method is one file in `methods/`: a frozen dataclass of its settings and a class that is
registered under the name that recipes use. Nothing else has to be edited.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from cxr_foundation.registry import Registry, discover

__all__ = ["METHODS", "Method", "methods"]

METHODS: Registry[type[Method]] = Registry("pretraining method")


class Method(nn.Module, abc.ABC):
    """A self-supervised method around an encoder.

    Encoder(s), heads, queue and teacher are submodules and persistent buffers, so that the state
    dict is the whole state. Whatever is random in a step comes from `draw`, never from a global
    generator: a run that is resumed sees the same numbers.

    Attributes:
        title: For people: "MoCo v2".
        paper: Where it is described: "arXiv 2003.04297".
        Settings: Frozen dataclass of its settings; every field has a default or is required in the
            recipe. Its `check(batch)`, if there is one, raises ValueError("field: reason") for
            settings that do not fit a batch.
        full_views: How many full views of each radiograph it takes, 1 or 2.
        local_views: Whether it also takes smaller local views.
        joins_batch_norms: Whether batch norms take their statistics over all processes, where the
            devices can.
        looks_at_map: Whether the loss is of the encoder's map alone, so that what a network does
            after it gets no gradient.
        encoder: Images (N, C, h, w) → pooled features (N, D): a timm network without a head.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[Any]]
    full_views: ClassVar[int]
    local_views: ClassVar[bool] = False
    joins_batch_norms: ClassVar[bool] = True
    looks_at_map: ClassVar[bool] = False

    encoder: nn.Module

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        # Convolutions run faster with channels last in memory, but a safetensors file holds only
        # contiguous tensors.
        self.register_state_dict_post_hook(_make_contiguous)  # type: ignore[no-untyped-call]

    @classmethod
    def build(
        cls,
        encoder: nn.Module,
        *,
        settings: Any,
        view: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Method:
        """The untrained method.

        Args:
            encoder: A timm network without a head; it has `num_features`.
            settings: An instance of `Settings`.
            view: (channels, height, width) of a full view.
            generator: Draws the weights of heads and the first queue; equal generators give equal
                methods.

        Raises:
            ValueError: "field: reason", for an encoder that the method cannot take or settings
                that do not fit it.
        """
        # A method that needs the view, or cannot take every encoder, has a `build` of its own.
        made: Callable[..., Method] = cls
        return made(encoder, settings=settings, generator=generator)

    @abc.abstractmethod
    def forward(
        self, views: Sequence[torch.Tensor], *, draw: int, patients: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """One training step's loss.

        Args:
            views: The full views (N, C, h, w), float32 and normalised, then the local views, all
                of the same radiographs in the same order.
            draw: Seed of whatever is random in this step, equal for equal (seed, epoch, batch).
            patients: int64 (N,), equal for radiographs of one patient.

        Returns:
            "loss", a scalar with gradient; "features" (N, D), the encoder's pooled features of a
            view, without gradient; and scalars without gradient that are worth a log line.
        """

    def after_step(self, *, progress: float) -> None:
        """Called once after each optimiser step; `progress` in (0, 1] is the part that is done."""

    def result(self) -> nn.Module:
        """The encoder that is published and that the next stage starts from."""
        return self.encoder

    def illustrate(self, views: Sequence[torch.Tensor], *, draw: int) -> dict[str, torch.Tensor]:
        """Pictures of what is asked and answered: name → (N, C, h, w), normalised as the views.

        Empty for methods that draw nothing. "input", "masked" and "output" come in this order.
        """
        return {}


def methods() -> Registry[type[Method]]:
    """All methods by name."""
    discover("cxr_foundation.pretrain.methods")
    return METHODS


def _make_contiguous(
    module: nn.Module, state: dict[str, torch.Tensor], prefix: str, metadata: object
) -> None:
    for name in [n for n in state if n.startswith(prefix)]:
        state[name] = state[name].contiguous()
