"""Pretrained chest X-ray encoders for timm and Hugging Face: a model hub and a small API.

Importing it loads neither torch nor timm nor transformers: the `cxr_*` architectures are
registered with them as soon as they are imported, in either order.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cxr_foundation import registration
from cxr_foundation._version import __version__

if TYPE_CHECKING:
    from cxr_foundation.catalog import card, list_models, read_card
    from cxr_foundation.convert import read_checkpoint
    from cxr_foundation.images import read_image
    from cxr_foundation.models.loading import create_model, load, processor

_HOMES = {
    "card": "cxr_foundation.catalog",
    "create_model": "cxr_foundation.models.loading",
    "list_models": "cxr_foundation.catalog",
    "load": "cxr_foundation.models.loading",
    "processor": "cxr_foundation.models.loading",
    "read_card": "cxr_foundation.catalog",
    "read_checkpoint": "cxr_foundation.convert",
    "read_image": "cxr_foundation.images",
}

__all__ = [
    "__version__",
    "card",
    "create_model",
    "list_models",
    "load",
    "processor",
    "read_card",
    "read_checkpoint",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


registration.install()
