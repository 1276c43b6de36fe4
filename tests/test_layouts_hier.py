"""Swin Transformers, ConvNeXt and SAM: what the sweep over layouts does not see."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wild import STANDINS, read_keys
from wild.ark import swin_of, swin_state

from cxr_foundation.convert import convert, layouts
from cxr_foundation.convert.swin import network_with_image_size
from cxr_foundation.errors import KeyMismatch

TINY = STANDINS["ark"].cases[0]


def old_swin(name="timm_0_5_4_swin_tiny", windows=None):
    """A Swin-T by the names of timm 0.5.4, with so many windows in its first stage."""
    state = swin_state(name, swin_of(TINY))
    if windows is not None:
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(windows, 49, 49)
    return state


def recognised(names):
    shapes = {name: (2, 2) for name in names}
    return [name for name, layout in layouts.items() if layout.recognises(shapes)]


def test_ark_drops_everything_but_the_teacher_by_name(tmp_path):
    STANDINS["ark_training"].write(tmp_path / "ark.pth.tar", TINY)
    report = convert(tmp_path / "ark.pth.tar").report
    tables = 12 + 5  # an index for each block, a mask for every other one of the first three stages
    assert (report.takes, report.used) == ("teacher", 206 - tables - 4 - 12 - 2)
    dropped = {r: n for r, n in report.dropped.items() if r != "training state"}
    assert dropped == {
        "student": 206,
        "projector": 4,
        "task heads": 12,
        "ImageNet head": 2,
        "computed tables": tables,
    }


def test_ark_student_is_taken_if_asked_for(tmp_path):
    STANDINS["ark_training"].write(tmp_path / "ark.pth.tar", TINY)
    student = convert(tmp_path / "ark.pth.tar", takes="student").state
    expected = swin_of(TINY, seed=1).state_dict()
    assert list(student) == list(expected)
    assert all(torch.equal(student[name], expected[name]) for name in expected)


def test_ark_plus_is_a_network_for_768_pixels():
    keys = read_keys("ark_swin_large_768")
    renamed = layouts["ark"].keymap("teacher").apply(keys)
    shapes = keys | {new: keys[taken.names[0]] for new, taken in renamed.used.items()}
    args = {"in_chans": 3, "img_size": 768}
    assert network_with_image_size(shapes) == ("swin_large_patch4_window12_384", args)


@pytest.mark.parametrize(
    ("windows", "args"),
    [
        (64, {"in_chans": 3}),  # 8 x 8 windows of 7 patches of 4 pixels: 224, the network's own
        (256, {"in_chans": 3, "img_size": 448}),
        (128, {"in_chans": 3}),  # not a square: the picture's two sides cannot be told
    ],
)
def test_the_masks_of_an_old_swin_file_tell_the_image_size(tmp_path, windows, args):
    torch.save(old_swin(windows=windows), tmp_path / "swin.pth")
    converted = convert(tmp_path / "swin.pth")
    assert converted.report.layout == "timm"
    assert converted.architecture == "swin_tiny_patch4_window7_224"
    assert converted.model_args == args


def test_what_the_caller_says_of_the_image_size_outranks_the_masks(tmp_path):
    torch.save(old_swin(windows=256), tmp_path / "swin.pth")
    assert (
        convert(tmp_path / "swin.pth", model_args={"img_size": 672}).model_args["img_size"] == 672
    )


def test_an_old_swin_file_without_one_merging_layer_is_refused(tmp_path):
    state = {n: t for n, t in old_swin().items() if "layers.2.downsample" not in n}
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(KeyMismatch, match=r"unexpected \(layers\.0\.downsample"):
        convert(tmp_path / "swin.pth")


def test_a_merging_layer_of_another_stage_is_refused(tmp_path):
    """Old names taken for new ones: a stage would be given the merging of the stage before."""
    state = old_swin()
    for leaf in ("norm.weight", "norm.bias", "reduction.weight"):
        state[f"layers.3.downsample.{leaf}"] = state.pop(f"layers.0.downsample.{leaf}")
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(KeyMismatch, match="of another size"):
        convert(tmp_path / "swin.pth")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("hf_swin_classifier", "swin_tiny_patch4_window7_224"),
        ("hf_convnext_classifier", "convnext_tiny"),
        ("torchvision_vit", "vit_base_patch32_224"),
        ("torchvision_swin", "swin_tiny_patch4_window7_224"),
        ("torchvision_convnext", "convnext_tiny"),
    ],
)
def test_a_classifier_for_14_findings_can_be_kept(tmp_path, name, head):
    STANDINS[name].write(tmp_path / "checkpoint", STANDINS[name].cases[0])
    converted = convert(tmp_path / "checkpoint", num_classes=14)
    assert (converted.architecture, converted.num_classes) == (head, 14)
    assert [t.shape[0] for n, t in converted.state.items() if n.startswith("head.")][-2:] == [
        14,
        14,
    ]
    assert "classification head" not in converted.report.dropped


def test_medsam_drops_prompts_and_masks_by_name(tmp_path):
    STANDINS["medsam_training"].write(tmp_path / "medsam.pth", STANDINS["medsam_training"].cases[0])
    dropped = convert(tmp_path / "medsam.pth").report.dropped
    assert {"prompt encoder", "mask decoder"} <= set(dropped)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (
            "Swin v2 of transformers",
            {
                "embeddings.patch_embeddings.projection.weight",
                "encoder.layers.0.blocks.0.attention.self.query.weight",
                "encoder.layers.0.blocks.0.attention.self.logit_scale",
            },
        ),
        (
            "Swin v2 of torchvision",
            {
                "features.0.0.weight",
                "features.1.0.attn.logit_scale",
                "features.1.0.attn.qkv.weight",
                "features.1.0.mlp.0.weight",
            },
        ),
        (
            "ConvNeXt v2 of transformers",
            {
                "embeddings.patch_embeddings.weight",
                "encoder.stages.0.layers.0.dwconv.weight",
                "encoder.stages.0.layers.0.grn.weight",
            },
        ),
        (
            "LiteMedSAM, a TinyViT",
            {"image_encoder.patch_embed.seq.0.c.weight", "image_encoder.neck.0.weight"},
        ),
    ],
)
def test_a_relative_with_other_layers_is_not_taken_for_one_of_them(what, names):
    assert recognised(names) == [], what
