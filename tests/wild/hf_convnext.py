"""ConvNeXt of transformers: as a Hub repository has it, and below a classifier."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextModel

from wild import Case, Features, randomise, standin
from wild.hf_swin import pooler_output, save_pretrained

_CASES = (
    Case("convnext_tiny", {"in_chans": 3}, 64),
    Case("convnext_base", {"in_chans": 1}, 64),
)
_SHAPES = {
    "convnext_tiny": ([96, 192, 384, 768], [3, 3, 9, 3]),
    "convnext_base": ([128, 256, 512, 1024], [3, 3, 27, 3]),
}


def _config(case: Case) -> ConvNextConfig:
    widths, depths = _SHAPES[case.network]
    return ConvNextConfig(
        num_channels=case.args["in_chans"], hidden_sizes=widths, depths=depths, num_labels=14
    )


@standin(layout="hf_convnext", truth="transformers: ConvNextModel", cases=_CASES)
def hf_convnext(path: Path, case: Case) -> Features:
    """ConvNextModel's model.safetensors."""
    model = randomise(ConvNextModel(_config(case)))
    save_pretrained(model, path)
    return pooler_output(model)


@standin(
    layout="hf_convnext", truth="transformers: ConvNextForImageClassification", cases=_CASES[:1]
)
def hf_convnext_classifier(path: Path, case: Case) -> Features:
    """A fine-tuned model as Lightning keeps it: below model."""
    model = randomise(ConvNextForImageClassification(_config(case)))
    state = {f"model.{n}": t for n, t in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 100}, path)
    return pooler_output(model.convnext)
