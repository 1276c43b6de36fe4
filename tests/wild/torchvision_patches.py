"""torchvision's ViT, Swin Transformer and ConvNeXt."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn

from wild import Case, Features, pooled, randomise, standin

_NAMES = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_base_patch4_window7_224": "swin_b",
    "convnext_tiny": "convnext_tiny",
    "convnext_base": "convnext_base",
}
_VIT = (
    Case("vit_base_patch32_224", {"in_chans": 3, "img_size": 64}, 64),
    Case("vit_base_patch16_224", {"in_chans": 3}, 224),
)


def _network(case: Case) -> nn.Module:
    build = getattr(torchvision.models, _NAMES[case.network])
    size = {"image_size": case.size} if case.network.startswith("vit") else {}
    network: nn.Module = build(weights=None, num_classes=14, **size)
    return randomise(network)


@standin(layout="torchvision_vit", truth="torchvision: VisionTransformer", cases=_VIT)
def torchvision_vit(path: Path, case: Case) -> Features:
    """A flat state."""
    network = _network(case)
    torch.save(network.state_dict(), path)
    network.heads = nn.Identity()
    return pooled(network)


@standin(layout="torchvision_vit", truth="torchvision: VisionTransformer", cases=_VIT[:1])
def torchvision_vit_0_12(path: Path, case: Case) -> Features:
    """The names of before 0.13, which torchvision itself still reads, in {model, optimizer}."""
    network = _network(case)
    old = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    state: dict[str, torch.Tensor] = dict(network.state_dict())
    for new, was in old.items():
        state = {n.replace(new, was): t for n, t in state.items()}
    network.load_state_dict(state)
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 1}, path)
    network.heads = nn.Identity()
    return pooled(network)


@standin(
    layout="torchvision_swin",
    truth="torchvision: SwinTransformer",
    cases=(
        Case("swin_tiny_patch4_window7_224", {"in_chans": 3}, 224),
        Case("swin_base_patch4_window7_224", {"in_chans": 3}, 224),
    ),
)
def torchvision_swin(path: Path, case: Case) -> Features:
    """{model, optimizer, lr_scheduler, epoch} of torchvision's training script."""
    network = _network(case)
    saved = {"model": network.state_dict(), "optimizer": {}, "lr_scheduler": {}, "epoch": 299}
    torch.save(saved, path)
    network.head = nn.Identity()
    return pooled(network)


@standin(
    layout="torchvision_convnext",
    truth="torchvision: ConvNeXt",
    cases=(
        Case("convnext_tiny", {"in_chans": 3}, 64),
        Case("convnext_base", {"in_chans": 3}, 64),
    ),
)
def torchvision_convnext(path: Path, case: Case) -> Features:
    """A flat state of several GPUs."""
    network = _network(case)
    torch.save({f"module.{n}": t for n, t in network.state_dict().items()}, path)
    network.classifier[2] = nn.Identity()
    return pooled(network)
