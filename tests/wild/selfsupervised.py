"""Self-supervised families: their own classes where they can be had, else lists of names."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from byol_pytorch import BYOL
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from wild import Case, Features, filled, randomise, read_keys, standin
from wild.moco import headless, network_of

_SMALL = Case("resnet18", {"in_chans": 3}, 64)
_LARGE = Case("resnet50", {"in_chans": 3}, 64)


def below(prefix: str, network: nn.Module, *, head: bool = False) -> dict[str, Tensor]:
    """The network's state below a prefix, with its last layer or without."""
    return {
        f"{prefix}{name}": tensor.clone()
        for name, tensor in network.state_dict().items()
        if head or not name.startswith(("fc.", "classifier."))
    }


def torchvision_of(case: Case, seed: int = 0) -> nn.Module:
    """torchvision's own network of a case."""
    return network_of(case.network, case.args["in_chans"], seed)


@standin(layout="simclr", truth="keys/simclr.txt", cases=(_SMALL,))
def simclr(path: Path, case: Case) -> Features:
    """{epoch, arch, state_dict, optimizer}, on one device."""
    network = torchvision_of(case)
    state = below("backbone.", network) | filled(read_keys("simclr"), {})
    moments = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
    saved = {"epoch": 200, "arch": case.network, "state_dict": state, "optimizer": moments}
    torch.save(saved, path)
    return headless(network)


@standin(layout="byol", truth="byol-pytorch: BYOL of torchvision's ResNet", cases=(_SMALL,))
def byol(path: Path, case: Case) -> Features:
    """The learner's whole state, flat, as its `state_dict` gives it."""
    network = torchvision_of(case)
    learner = BYOL(
        network,
        image_size=32,
        hidden_layer="avgpool",
        projection_size=16,
        projection_hidden_size=32,
        augment_fn=nn.Identity(),
    )
    # Making it has shown it pictures, so that its statistics have moved.
    randomise(learner.online_encoder, 1)
    randomise(learner.target_encoder, 2)
    torch.save(learner.state_dict(), path)
    return headless(copy.deepcopy(learner.net))


@standin(layout="byol_bolts", truth="keys/byol_bolts.txt", cases=(_SMALL,))
def byol_bolts(path: Path, case: Case) -> Features:
    """{epoch, state_dict, callbacks, optimizer_states, hyper_parameters}."""
    online, target = (torchvision_of(case, seed) for seed in (0, 1))
    state = below("online_network.encoder.", online, head=True)
    state |= below("target_network.encoder.", target, head=True)
    save_lightning(state | filled(read_keys("byol_bolts"), {}), path)
    return headless(online)


def save_lightning(state: dict[str, Tensor], path: Path, **hyper_parameters: object) -> None:
    """A file as a Lightning trainer saves it."""
    score = {"monitor": "val_loss", "best_model_score": torch.tensor(0.25)}
    saved = {
        "epoch": 10,
        "global_step": 1000,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint": score},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
        "lr_schedulers": [{"base_lrs": [0.1]}],
        "hyper_parameters": hyper_parameters,
    }
    torch.save(saved, path)


@standin(layout="swav", truth="keys/swav.txt", cases=(_LARGE,))
def swav(path: Path, case: Case) -> Features:
    """{epoch, state_dict, optimizer, amp}, DistributedDataParallel."""
    network = torchvision_of(case)
    trunk = below("", network)
    # Its first convolution pads by 1 and then by 2, torchvision's by 3: the same.
    pattern = r"module\.(?!projection_head|prototypes).+"
    state = filled(read_keys("swav"), {pattern: trunk})
    torch.save({"epoch": 400, "state_dict": state, "optimizer": {}, "amp": {}}, path)
    return headless(network)


@standin(layout="vicreg", truth="keys/vicreg.txt", cases=(_SMALL,))
def vicreg(path: Path, case: Case) -> Features:
    """{epoch, model, optimizer}, DistributedDataParallel."""
    network = torchvision_of(case)
    state = filled(read_keys("vicreg"), {r"module\.backbone\..+": below("", network)})
    torch.save({"epoch": 100, "model": state, "optimizer": {"mu": torch.zeros(2)}}, path)
    return headless(network)


@standin(layout="barlow_twins", truth="keys/barlow_twins.txt", cases=(_LARGE,))
def barlow_twins(path: Path, case: Case) -> Features:
    """{epoch, model, optimizer}, DistributedDataParallel."""
    network = torchvision_of(case)
    state = below("module.backbone.", network) | filled(read_keys("barlow_twins"), {})
    torch.save({"epoch": 1000, "model": state, "optimizer": {"mu": torch.zeros(2)}}, path)
    return headless(network)


@standin(layout="vissl", truth="keys/vissl.txt", cases=(_LARGE,))
def vissl(path: Path, case: Case) -> Features:
    """{classy_state_dict: {base_model: {model: {trunk, heads}, meta}, optimizer, …}, …}."""
    network = torchvision_of(case)
    heads = {name.removeprefix("heads."): t for name, t in filled(read_keys("vissl"), {}).items()}
    model = {"trunk": below("_feature_blocks.", network), "heads": heads}
    classy = {
        "base_model": {"model": model, "meta": {}},
        "optimizer": {"optim": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}},
        "loss": {"queue": torch.zeros(2, 2)},
        "train": True,
    }
    saved = {"phase_idx": 9, "iteration": 100, "loss": 0.5, "classy_state_dict": classy}
    torch.save(saved, path)
    return headless(network)


class _Lightly(nn.Module):
    """MoCo as in lightly's examples: heads of lightly's own, on a backbone that is brought."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = MoCoProjectionHead(512, 32, 16)
        self.backbone_momentum = copy.deepcopy(backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        self.online_classifier = nn.Linear(512, 10)


def _lightly(path: Path, backbone: nn.Module) -> None:
    model = _Lightly(backbone)
    randomise(model.backbone_momentum, 1)
    save_lightning(model.state_dict(), path)


@standin(layout="lightly", truth="lightly: MoCoProjectionHead on torchvision", cases=(_SMALL,))
def lightly(path: Path, case: Case) -> Features:
    """A Lightning file; the backbone is the ResNet's children in an nn.Sequential."""
    network = torchvision_of(case)
    _lightly(path, nn.Sequential(*list(network.children())[:-1]))
    return headless(network)


@standin(layout="lightly", truth="lightly: MoCoProjectionHead on torchvision", cases=(_SMALL,))
def lightly_named(path: Path, case: Case) -> Features:
    """A Lightning file; the backbone is the ResNet itself, its last layer an Identity."""
    network = torchvision_of(case)
    network.fc = nn.Identity()
    _lightly(path, network)
    return headless(network)


def _solo(path: Path, case: Case, encoder: str) -> Features:
    trained, momentum = (torchvision_of(case, seed) for seed in (0, 1))
    state = below(f"{encoder}.", trained) | below(f"momentum_{encoder}.", momentum)
    save_lightning(state | filled(read_keys("solo_learn"), {}), path, method="byol")
    return headless(trained)


@standin(layout="solo_learn", truth="keys/solo_learn.txt", cases=(_SMALL,))
def solo_learn(path: Path, case: Case) -> Features:
    """A Lightning file of BYOL."""
    return _solo(path, case, "backbone")


@standin(layout="solo_learn", truth="keys/solo_learn.txt", cases=(_SMALL,))
def solo_learn_1_0_2(path: Path, case: Case) -> Features:
    """The same by the names of that version."""
    return _solo(path, case, "encoder")
