"""Dialects of torchvision's ResNet and DenseNet: torchxrayvision, CheXNet, MoCo-CXR fine-tuned."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torchxrayvision
from torch import Tensor, nn

from wild import Case, Features, randomise, standin
from wild.moco import headless
from wild.selfsupervised import below, torchvision_of

_DENSENET = Case("densenet121", {"in_chans": 3}, 64)
_RESNET = Case("resnet18", {"in_chans": 3}, 64)


@standin(
    layout="torchvision",
    truth="torchxrayvision: DenseNet, pickled whole",
    cases=(Case("densenet121", {"in_chans": 1}, 64),),
)
def xrv_densenet121(path: Path, case: Case) -> Features:
    """The module itself; unpickling it by torch would import torchxrayvision."""
    network = torchxrayvision.models.DenseNet(op_threshs=torch.full((18,), 0.25))
    randomise(network)
    torch.save(network, path)

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = network.features2(pictures)
        return found

    return features


@standin(
    layout="torchvision",
    truth="torchvision: ResNet, as torchxrayvision builds it",
    cases=tuple(Case("resnet50", {"in_chans": channels}, 64) for channels in (1, 3)),
)
def xrv_resnet50(path: Path, case: Case) -> Features:
    """A flat state: its own with one channel and 18 findings, its baselines' with three."""
    network = torchvision_of(case)
    network.fc = nn.Linear(2048, 18)
    torch.save(network.state_dict(), path)
    return headless(network)


@standin(
    layout="torchvision",
    truth="torchvision: DenseNet, by its names before 0.3",
    cases=(_DENSENET,),
)
def chexnet(path: Path, case: Case) -> Features:
    """{state_dict} of DataParallel, nn.Sequential(Linear, Sigmoid) as the classifier.

    Written by torch before 0.4.1, whose batch norms had no counter.
    """
    network = torchvision_of(case)
    network.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())
    state = {
        "module.densenet121." + re.sub(r"(norm|conv)(\d)\.(?=\w+$)", _dotted, name): tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save({"epoch": 10, "state_dict": state, "best_loss": 0.1, "optimizer": {}}, path)
    return headless(network)


def _dotted(match: re.Match[str]) -> str:
    """norm1. → norm.1. inside dense layers; outside, norm0 and the like have no dot."""
    inside = "denselayer" in match.string
    return f"{match[1]}.{match[2]}." if inside else match[0]


@standin(
    layout="torchvision",
    truth="torchvision: ResNet, DenseNet, as MoCo-CXR builds them",
    cases=(_RESNET, _DENSENET),
)
def moco_cxr_fine_tuned(path: Path, case: Case) -> Features:
    """{ckpt_info, model_name, tasks, model_state, optimizer, lr_scheduler}, DataParallel.

    https://github.com/stanfordmlgroup/MoCo-CXR, chexpert_supervised/chexpert-model/saver. Its
    ResNets are of pretrainedmodels: the last layer is renamed and another one stands beside.
    """
    network = torchvision_of(case)
    state = below("module.model.", network)
    if case.network == "resnet18":
        state["module.model.last_linear.weight"] = torch.randn(1000, 512)
        state["module.model.last_linear.bias"] = torch.randn(1000)
        state["module.fc.weight"], state["module.fc.bias"] = torch.randn(14, 512), torch.randn(14)
    else:
        state["module.model.classifier.weight"] = torch.randn(14, 1024)
        state["module.model.classifier.bias"] = torch.randn(14)
    saved = {
        "ckpt_info": {"epoch": 3, "iteration": 8192, "chexpert-log_loss": 0.4},
        "model_name": "DenseNet121",
        "tasks": ["Pleural Effusion"],
        "model_state": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "lr_scheduler": None,
    }
    torch.save(saved, path)
    return headless(network)
