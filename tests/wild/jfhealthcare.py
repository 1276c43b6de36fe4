"""JF Healthcare's CheXpert network, with the class that torchxrayvision carries."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torchxrayvision.baseline_models import jfhealthcare as carried

from wild import Case, Features, randomise, standin


@standin(
    layout="jfhealthcare",
    truth="torchxrayvision: baseline_models.jfhealthcare",
    cases=(Case("densenet121", {"in_chans": 3}, 64),),
)
def jfhealthcare(path: Path, case: Case) -> Features:
    """pre_train.pth, flat."""
    config = json.loads((Path(carried.__file__).parent / "config" / "example.json").read_text())
    # Without its own way of fetching ImageNet's weights.
    model = randomise(
        carried.classifier.Classifier(SimpleNamespace(**{**config, "pretrained": False}))
    )
    torch.save(model.state_dict(), path)

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = model.backbone(pictures).mean(dim=(2, 3))
        return found

    return features
