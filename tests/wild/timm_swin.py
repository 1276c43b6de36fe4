"""Plain Swin and ConvNeXt files of timm: of today, and Swin by the names of timm 0.5.4."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from wild import Case, Features, pooled, randomise, standin
from wild.ark import swin_of, swin_state

_SWIN = Case("swin_tiny_patch4_window7_224", {"in_chans": 3}, 224)


@standin(
    layout="timm",
    truth="timm: SwinTransformer, ConvNeXt",
    cases=(
        Case("convnext_tiny", {"in_chans": 1}, 64),
        Case("convnext_base", {"in_chans": 3}, 64),
        _SWIN,
    ),
)
def timm_hierarchical(path: Path, case: Case) -> Features:
    """model.safetensors with a head for 14 findings, as a Hub repository has it."""
    network = randomise(timm.create_model(case.network, num_classes=14, **case.args))
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
    network.reset_classifier(0)
    return pooled(network)


@standin(layout="timm", truth="keys/timm_0_5_4_swin_tiny.txt", cases=(_SWIN,))
def timm_swin_0_5_4(path: Path, case: Case) -> Features:
    """{state_dict, epoch, arch}, as timm's training script saved it."""
    network = swin_of(case)
    state = swin_state("timm_0_5_4_swin_tiny", network)
    torch.save({"epoch": 10, "arch": case.network, "state_dict": state}, path)
    return pooled(network)
