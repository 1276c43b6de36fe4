"""CheSS: convert, and ask the weights which normalisation they were trained with.

    python conversion/chess.py CheSS.pth.tar OUT_DIR RADIOGRAPHS…

The authors' sources name two normalisations and a port feeds a third (see the card). The running
statistics of the first batch norm remember which one was used: fed with many radiographs, the
first layer should have them. Prints the distance for each, the smallest first.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cxr_foundation import load
from cxr_foundation.contract import InputContract
from cxr_foundation.images.processor import Processor
from cxr_foundation.models.loading import contract_of, convert_to_folder

# mean, std of pixels in [0, 1]: https://github.com/mi2rl/CheSS/tree/c48f9f7/upstream,
# …/downstream/classification, and https://github.com/mlmed/torchxrayvision/pull/122 (0 to 255).
CANDIDATES = {
    "pretraining code": (0.658, 0.221),
    "classification code": (0.485, 0.229),
    "0 to 255, a port": (0.0, 1 / 255),
    "0 to 1": (0.0, 1.0),
}


@torch.no_grad()
def distance(encoder: torch.nn.Module, contract: InputContract, files: Sequence[str]) -> float:
    """Root mean square over channels of the log ratio of variances, plus that of the shift."""
    first, held = encoder.get_submodule("conv1"), encoder.get_submodule("bn1").state_dict()
    found = first(Processor(contract)(list(files))["pixel_values"]).transpose(0, 1).flatten(1)
    shift = (found.mean(1) - held["running_mean"]) / held["running_var"].sqrt()
    ratio = (found.var(1) / held["running_var"]).log()
    return float(ratio.square().mean().sqrt() + shift.square().mean().sqrt())


if __name__ == "__main__":
    file, folder, *radiographs = sys.argv[1:]
    convert_to_folder(Path(file), Path(folder), name="cxr_resnet50.chess")
    encoder, contract = load(folder), contract_of(folder)
    found = []
    for name, (mean, std) in CANDIDATES.items():
        tried = dataclasses.replace(contract, mean=(mean,), std=(std,))
        found.append((distance(encoder, tried, radiographs), mean, std, name))
    for far, mean, std, name in sorted(found):
        print(f"{far:8.3f}  mean {mean}, std {std:.3g} ({name})")
