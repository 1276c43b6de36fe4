"""CheXFound: DINOv2 with SwiGLU and registers, beside transformers' network of that definition."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from wild import Case, Features, filled, randomise, read_keys, standin
from wild.dinov2 import class_token_of


def _case(width: int, depth: int, gated: int, size: int) -> Case:
    args = {"in_chans": 3, "patch_size": 16, "img_size": size, "embed_dim": width, "depth": depth}
    args |= {"num_heads": width // 64, "mlp_ratio": gated / width}
    return Case("vit_giant_patch14_reg4_dinov2", args, size)


_CASES = {
    "chexfound_small": _case(384, 12, 2 * 1024, 64),
    "chexfound": _case(1024, 24, 2 * 2736, 512),
}


def _in_dinov2s_order(network: nn.Module) -> dict[str, Tensor]:
    """A state of transformers' in the order of DINOv2's own; the parts of one layer are joined."""
    state = network.state_dict()

    def of(*parts: str) -> list[Tensor]:
        leaves = ("weight", "bias")
        return [torch.cat([state[f"{part}.{leaf}"] for part in parts]) for leaf in leaves]

    tokens = ("cls_token", "position_embeddings", "register_tokens", "mask_token")
    found = [state[f"embeddings.{name}"] for name in tokens]
    found += of("embeddings.patch_embeddings.projection")
    for n in range(network.config.num_hidden_layers):
        layer = f"encoder.layer.{n}"
        found += of(f"{layer}.norm1")
        found += of(*(f"{layer}.attention.{p}_proj" for p in ("q", "k", "v")))
        found += of(f"{layer}.attention.o_proj")
        found += [state[f"{layer}.layer_scale1.lambda1"], *of(f"{layer}.norm2")]
        found += of(f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj")
        found += of(f"{layer}.mlp.down_proj")
        found += [state[f"{layer}.layer_scale2.lambda1"]]
    found += of("layernorm")
    return {str(n): tensor for n, tensor in enumerate(found)}


@standin(layout="dinov2", truth="keys/chexfound.txt", cases=tuple(_CASES.values()))
def chexfound(path: Path, case: Case) -> Features:
    """model.safetensors of the Hub, flat."""
    keys = read_keys(next(name for name, known in _CASES.items() if known == case))
    config = Dinov2WithRegistersConfig(
        hidden_size=case.args["embed_dim"],
        num_attention_heads=case.args["num_heads"],
        num_hidden_layers=case.args["depth"],
        image_size=case.size,
        patch_size=16,
        num_register_tokens=4,
        use_swiglu_ffn=True,
    )
    network = randomise(Dinov2WithRegistersModel(config))
    save_file(filled(keys, {".+": _in_dinov2s_order(network)}), path, {"format": "pt"})
    return class_token_of(network)
