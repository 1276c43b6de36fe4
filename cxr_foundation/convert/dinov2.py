r"""DINOv2 by its own names, with and without registers.

    flat: cls_token, pos_embed, register_tokens, mask_token,    released files, and "backbone
          patch_embed.proj, blocks.N.{norm1,attn,ls1,…}, norm   compatible" ones of others
    {teacher: {backbone.*, dino_head.*, ibot_head.*}}           teacher_checkpoint.pth
    {model: {student.*, teacher.*, dino_loss.center, …}, …}     a whole training state
    blocks.C.N.*                                                N counts on from chunk to chunk
    blocks.N.mlp.{w12,w3}                                       SwiGLU: the giant, CheXFound
    model.*, blocks.N.ls1.weight                                CheXFound on the Hub

With registers, timm keeps no position for the class token: it is added to the token here. A flat
file without registers and mask token has timm's names alone and is the layout "timm".
https://github.com/facebookresearch/dinov2/blob/main/dinov2/models/vision_transformer.py and
https://github.com/facebookresearch/dinov2/blob/main/dinov2/train/ssl_meta_arch.py. Written from
these sources, and for CheXFound from others' loading of its file; unproven on the authors' files.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from cxr_foundation.convert import student_teacher
from cxr_foundation.convert.keymap import Drop, KeyMap, Layout, Make, Shapes, layouts
from cxr_foundation.convert.networks import network_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["REGISTERS"]

_WRAPPERS = ("state_dict.", "model.", "module.", "backbone.")
_LAYER_SCALE = re.compile(r"blocks\.0\.(0\.)?ls1\.(gamma|weight)")
# What timm's own names do not have.
_OWN = re.compile(r"mask_token|register_tokens|blocks\.0\.0\..+|(dino|ibot)_head\..+")


def _class_token(token: Tensor, positions: Tensor, registers: Tensor) -> Tensor:
    return token + positions[:, :1]


def _patch_positions(token: Tensor, positions: Tensor, registers: Tensor) -> Tensor:
    return positions[:, 1:]


def _registers(token: Tensor, positions: Tensor, registers: Tensor) -> Tensor:
    return registers


# https://github.com/huggingface/pytorch-image-models/blob/v1.0.20/timm/models/vision_transformer.py,
# `no_embed_class`: positions are added to the patches alone.
REGISTERS = Make(
    parts=(r"cls_token", "pos_embed", "register_tokens"),
    gives={
        "cls_token": _class_token,
        "pos_embed": _patch_positions,
        "reg_token": _registers,
    },
)


def _gated(first: Tensor, last: Tensor) -> Tensor:
    """The layer that makes values and their gates (2H, D), beside the one behind them (D, H).

    Without gates the same names would pass for those of a plain hidden layer.
    """
    if first.shape[0] != 2 * last.shape[1]:
        raise ValueError("the hidden layer is not gated")
    return first


def _behind(first: Tensor, last: Tensor) -> Tensor:
    return last


_SWIGLU = Make(
    parts=(r"(.+\.mlp)\.w12\.weight", r"\1.w3.weight"),
    gives={r"\1.fc1.weight": _gated, r"\1.fc2.weight": _behind},
)


def _recognises(shapes: Shapes) -> bool:
    bare = student_teacher.bare(shapes, _WRAPPERS)
    return any(map(_LAYER_SCALE.fullmatch, bare)) and any(map(_OWN.fullmatch, bare))


def _keymap(takes: str) -> KeyMap:
    keymap = student_teacher.keymap(
        takes,
        wrappers=_WRAPPERS,
        drop=(
            Drop("mask token", r"mask_token"),
            Drop("pretraining heads", r"(dino|ibot)_head\..+"),
            Drop("centre of the teacher's outputs", r"(dino|ibot_patch)_loss\.center"),
        ),
        rename=(
            (r"^blocks\.\d+\.(\d+\.)", r"blocks.\1"),
            (r"\.ls([12])\.weight$", r".ls\1.gamma"),
            (r"\.mlp\.w12\.bias$", ".mlp.fc1.bias"),
            (r"\.mlp\.w3\.bias$", ".mlp.fc2.bias"),
        ),
    )
    return dataclasses.replace(keymap, make=(REGISTERS, _SWIGLU))


def _network(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """The giant with other sizes, where the hidden layer is gated; else what the table says."""
    first, last = (shapes.get(f"blocks.0.mlp.fc{n}.weight", (0, 0)) for n in (1, 2))
    found = network_of(shapes)
    if found is None or first[0] != 2 * last[1]:
        return found
    sizes = {
        "embed_dim": first[1],
        "depth": len({n.split(".")[1] for n in shapes if n.startswith("blocks.")}),
        "num_heads": first[1] // 64,
        "mlp_ratio": first[0] / first[1],
    }
    registers = "reg4_" if "reg_token" in shapes else ""
    return f"vit_giant_patch14_{registers}dinov2", {**found[1], **sizes}


layouts.register("dinov2")(
    Layout(
        name="dinov2",
        title="DINOv2 (CheXFound)",
        source=(
            "https://github.com/facebookresearch/dinov2/blob/main/dinov2/models/"
            "vision_transformer.py"
        ),
        proof=None,
        rule=student_teacher.RULE,
        takes="teacher",
        encoders=lambda names: student_teacher.encoders(names, _WRAPPERS),
        recognises=_recognises,
        keymap=_keymap,
        network=_network,
    )
)
