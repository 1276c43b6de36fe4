"""Names and sizes that are known without building a network are timm's own."""

import subprocess
import sys
import textwrap

import pytest
import timm
import torch

from cxr_foundation.convert import tensors

NETWORKS = [
    *((name, {}) for name in (*tensors.RESNETS, *tensors.DENSENETS, *tensors.CONVNEXTS)),
    *((f"{name}_patch4_window7_224", {}) for name in tensors.SWINS),
    ("swin_large_patch4_window12_384", {"img_size": 768}),
    *((f"vit_{size}_patch16_224", {}) for size in ("tiny", "small", "base", "large")),
    ("vit_base_patch32_224", {"in_chans": 1}),
    ("vit_small_patch16_224", {"img_size": 512, "in_chans": 1}),
    ("vit_base_patch16_224", {"global_pool": "avg"}),
    *((f"vit_{size}_patch14_dinov2", {}) for size in ("small", "base", "large")),
    *((f"vit_{size}_patch14_reg4_dinov2", {}) for size in ("small", "base", "large")),
    ("vit_large_patch14_dinov2", {"patch_size": 16, "img_size": 512}),
    ("vit_base_patch32_clip_quickgelu_224", {}),
    ("vit_base_patch16_clip_224", {}),
    ("vit_large_patch14_clip_224", {"img_size": 336}),
    ("vit_base_patch16_siglip_224", {}),
    ("vit_large_patch16_siglip_384", {}),
    ("vit_small_patch16_224", {"num_heads": 12}),
    ("eva02_base_patch14_224", {}),
    *(
        (f"eva02_{size}_patch14_224", {"patch_size": 16, "ref_feat_shape": (14, 14)})
        for size in ("tiny", "small", "base")
    ),
    *((f"samvit_{size}_patch16", {}) for size in ("base", "large", "huge")),
    ("samvit_base_patch16", {"img_size": 256}),
]


@pytest.mark.parametrize(("name", "args"), NETWORKS)
def test_names_sizes_and_their_order_are_timms(name, args):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0, **args)
    expected = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    found = tensors.known_tensors(name, args)
    assert found is not None
    assert list(found.items()) == list(expected.items())
    whole = {n for n, t in network.state_dict().items() if not t.is_floating_point()}
    assert whole == {n for n in found if n.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_vit", {}),
        ("resnet18", {"stem_width": 32}),
        ("vit_base_patch16_224", {"class_token": False}),
        ("vit_base_patch16_gap_224", {}),
        ("swin_s3_tiny_224", {}),
        ("vit_giant_patch14_dinov2", {}),
    ],
)
def test_what_is_not_known_is_not_guessed(name, args):
    assert tensors.known_tensors(name, args) is None


def test_a_file_is_described_without_torch_or_timm(tmp_path):
    network = timm.create_model("resnet18", num_classes=0)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "a.pth")
    code = """
        import sys
        from cxr_foundation.convert import inspect
        report = inspect(sys.argv[1])
        assert report.architecture == "resnet18" and report.problem is None
        print({"torch", "timm", "transformers", "huggingface_hub"} & set(sys.modules))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
