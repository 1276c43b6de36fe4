"""EfficientNet-Lite0 by the names of EfficientNet-PyTorch, with the Lite package's own class."""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from wild import Case, Features, randomise, standin


@standin(
    layout="efficientnet_lite",
    truth="efficientnet-lite-pytorch: EfficientNet",
    # Its padding is worked out for pictures of 224 pixels once and for all.
    cases=(Case("tf_efficientnet_lite0", {"in_chans": 3}, 224),),
)
def efficientnet_lite0(path: Path, case: Case) -> Features:
    """efficientnet-lite0-57934424.pth, flat."""
    model = randomise(EfficientNet.from_name("efficientnet-lite0"))
    torch.save(model.state_dict(), path)

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = model.extract_features(pictures).mean((2, 3))
        return found

    return features
