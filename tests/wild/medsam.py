"""MedSAM, with segment_anything's own classes: flat as released, and while training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from wild import Case, Features, randomise, standin

_CASES = (
    Case("samvit_base_patch16", {"in_chans": 3, "img_size": 256}, 256),
    Case("samvit_base_patch16", {"in_chans": 3}, 1024),
)


def _sam(size: int) -> Sam:
    """As `build_sam_vit_b` makes it, for pictures of any size."""
    grid = size // 16
    encoder = ImageEncoderViT(
        img_size=size,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4,
        out_chans=256,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
    )
    prompts = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(grid, grid),
        input_image_size=(size, size),
        mask_in_chans=16,
    )
    masks = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    sam = Sam(encoder, prompts, masks)
    randomise(sam)
    return sam


def _mean_of_the_neck(sam: Sam) -> Features:
    """SAM pools nothing itself: the mean over the picture of the embedding (B, 256, h, w)."""

    def features(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = sam.image_encoder(pictures)
        return embedding.mean((2, 3))

    return features


@standin(layout="medsam", truth="segment_anything: Sam", cases=_CASES)
def medsam(path: Path, case: Case) -> Features:
    """A flat state, as released."""
    sam = _sam(case.size)
    torch.save(sam.state_dict(), path)
    return _mean_of_the_neck(sam)


@standin(layout="medsam", truth="segment_anything: Sam", cases=_CASES[:1])
def medsam_training(path: Path, case: Case) -> Features:
    """{model, optimizer, epoch, loss, best_loss} of several GPUs."""
    sam = _sam(case.size)
    state = {f"module.{n}": t for n, t in sam.state_dict().items()}
    momentum = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
    saved = {"model": state, "optimizer": momentum, "epoch": 24, "loss": 0.1, "best_loss": 0.1}
    torch.save(saved, path)
    return _mean_of_the_neck(sam)
