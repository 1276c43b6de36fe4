"""Records and cards for tests: complete, valid, invented."""

from __future__ import annotations

import dataclasses
from typing import Any

from cxr_foundation.catalog import (
    Checkpoint,
    Conversion,
    Evidence,
    Licences,
    Source,
    Training,
    render_card,
)
from cxr_foundation.contract import InputContract

PAGE = Evidence(verified="page", source="https://example.org/model", date="2026-11-21")
BYTES = Evidence(verified="bytes", source="tests", date="2026-11-21")


def make_checkpoint(**overrides: Any) -> Checkpoint:
    """A bundled one-channel ResNet-18 whose facts are all known; any field can be replaced."""
    checkpoint = Checkpoint(
        name="cxr_resnet18.made_up",
        architecture="cxr_resnet18",
        title="A made-up encoder",
        default=True,
        num_features=512,
        source=Source(kind="bundled", path="cxr_resnet18.made_up", sha256="0" * 64, size_bytes=9),
        conversion=Conversion(layout=None, takes=None, ran_on_authors_file=True),
        contract=InputContract(channels=1, size=(112, 112), mean=(0.5,), std=(0.25,)),
        licences=Licences(code="apache-2.0", weights="apache-2.0", data="cc-by-4.0"),
        gating=None,
        training=Training(
            method="MoCo v2",
            recipe="moco_open_small",
            images=100,
            data=("phantoms",),
            overlaps=(),
            labels_used_for_selection=False,
        ),
        citation=None,
        results=(),
        golden=None,
        evidence={
            "architecture": PAGE,
            "num_features": PAGE,
            "source": BYTES,
            "conversion": PAGE,
            "contract": PAGE,
            "licences": PAGE,
            "training": PAGE,
        },
        unknown={},
    )
    return dataclasses.replace(checkpoint, **overrides)


def make_card(**overrides: Any) -> str:
    """The text of a card with these facts."""
    return render_card(make_checkpoint(**overrides), body="# Made up\n", hub_keys={})
