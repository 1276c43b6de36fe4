"""Image encoders trained with reports, from lists of names beside torchvision's own networks."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from wild import Case, Features, filled, pooled, randomise, read_keys, standin
from wild.moco import headless
from wild.selfsupervised import below, save_lightning, torchvision_of

_RESNET18 = Case("resnet18", {"in_chans": 3}, 64)
_RESNET50 = Case("resnet50", {"in_chans": 3}, 64)
# The size to which GLoRIA and MGCA bring every picture.
_ENLARGED = tuple(Case(n, {"in_chans": 3}, 299) for n in ("resnet18", "resnet50"))


def _enlarging(network: nn.Module) -> Features:
    """Features of a network behind the enlargement that GLoRIA and MGCA begin with."""
    enlarge = nn.Upsample(size=(299, 299), mode="bilinear", align_corners=True)
    features = headless(network)
    return lambda pictures: features(enlarge(pictures))


@standin(layout="gloria", truth="keys/gloria.txt", cases=_ENLARGED)
def gloria(path: Path, case: Case) -> Features:
    """A Lightning file with an OmegaConf configuration among its hyper-parameters."""
    network = torchvision_of(case)
    state = below("gloria.img_encoder.model.", network) | filled(read_keys("gloria"), {})
    config = OmegaConf.create({"model": {"vision": {"model_name": case.network}}})
    save_lightning(state, path, config=config)
    return _enlarging(network)


@standin(layout="convirt", truth="keys/convirt.txt", cases=(_RESNET18,))
def convirt(path: Path, case: Case) -> Features:
    """model.pth: the whole model's state, flat."""
    network = torchvision_of(case)
    children = nn.Sequential(*list(network.children())[:-1])
    torch.save(below("res_features.", children) | filled(read_keys("convirt"), {}), path)
    return headless(network)


@standin(layout="mgca", truth="keys/mgca_resnet50.txt", cases=_ENLARGED[1:])
def mgca_resnet50(path: Path, case: Case) -> Features:
    """A Lightning file, img_encoder=resnet_50."""
    network = torchvision_of(case)
    state = below("img_encoder_q.model.", network) | filled(read_keys("mgca_resnet50"), {})
    save_lightning(state, path, img_encoder="resnet_50", emb_dim=128)
    return _enlarging(network)


@standin(
    layout="mgca",
    truth="keys/mgca_vit.txt",
    cases=(Case("vit_base_patch16_224", {"in_chans": 3}, 224),),
)
def mgca_vit(path: Path, case: Case) -> Features:
    """A Lightning file, img_encoder=vit_base; the class token is its global feature."""
    network = randomise(timm.create_model(case.network, num_classes=0))
    state = filled(read_keys("mgca_vit"), {r"img_encoder_q\.model\..+": network.state_dict()})
    save_lightning(state, path, img_encoder="vit_base", emb_dim=128)
    return pooled(network)


def _biovil(path: Path, case: Case, keys: str) -> Features:
    network = torchvision_of(case)
    state: dict[str, Tensor] = below("encoder.encoder.", network, head=True)
    torch.save(state | filled(read_keys(keys), {}), path)
    return headless(network)


@standin(layout="biovil", truth="keys/biovil.txt", cases=(_RESNET50,))
def biovil(path: Path, case: Case) -> Features:
    """The image model's state, flat; its own embedding is the ResNet's, pooled."""
    return _biovil(path, case, "biovil")


@standin(layout="biovil", truth="keys/biovil_t.txt", cases=(_RESNET50,))
def biovil_t(path: Path, case: Case) -> Features:
    """The same with the comparison to a prior image; features of its ResNet alone."""
    return _biovil(path, case, "biovil_t")
