"""From wild checkpoints to encoders: recognised by keys, verified to the last tensor."""

import json

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from cxr_foundation import catalog, hub
from cxr_foundation.convert import (
    Drop,
    KeyMap,
    convert,
    detect,
    inspect,
    layouts,
)
from cxr_foundation.convert.keymap import FUSED_QKV, Make, NameClash, Taken
from cxr_foundation.convert.networks import network_of
from cxr_foundation.errors import KeyMismatch, UnknownLayout, UnknownName, UnsafeCheckpoint


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(network, seed):
    """Weights and batch-norm statistics that no two layers share."""
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            n = module.num_features
            module.weight.data = 0.5 + torch.rand(n, generator=g)
            module.bias.data = 0.1 * torch.randn(n, generator=g)
            module.running_mean = 0.1 * torch.randn(n, generator=g)
            module.running_var = 0.5 + torch.rand(n, generator=g)
            module.num_batches_tracked = torch.tensor(1000 + seed)
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=g) / fan_in**0.5
    return network.eval()


def torchvision_network(name, *, channels, seed=0):
    network = getattr(torchvision.models, name)(weights=None)
    if channels == 1 and name.startswith("resnet"):
        network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    elif channels == 1:
        network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return randomise(network, seed)


def features(network, pictures):
    """torchvision's own pooled features: the input of its classifier."""
    head = "fc" if hasattr(network, "fc") else "classifier"
    kept, identity = getattr(network, head), torch.nn.Identity()
    setattr(network, head, identity)
    with torch.no_grad():
        found = network(pictures)
    setattr(network, head, kept)
    return found


def moco_checkpoint(query, key, *, mlp=True, prefix="module."):
    """What MoCo's main_moco.py saves, from two torchvision networks."""
    state = {}
    for encoder, network in (("encoder_q", query), ("encoder_k", key)):
        for name, tensor in network.state_dict().items():
            head, _, leaf = name.partition(".")
            if head in ("fc", "classifier") and mlp:
                state[f"{prefix}{encoder}.{head}.0.{leaf}"] = tensor.clone()
                state[f"{prefix}{encoder}.{head}.2.{leaf}"] = tensor.clone()
            else:
                state[f"{prefix}{encoder}.{name}"] = tensor
    state[f"{prefix}queue"] = torch.zeros(128, 16)
    state[f"{prefix}queue_ptr"] = torch.zeros(1, dtype=torch.int64)
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []}
    return {"epoch": 200, "arch": "resnet", "state_dict": state, "optimizer": momentum}


def timm_model(converted):
    network = timm.create_model(
        converted.architecture, num_classes=converted.num_classes, **converted.model_args
    )
    network.load_state_dict(converted.state)
    return network.eval()


def state_of(name, **args):
    network = timm.create_model(name, **args)
    return {n: t.clone() for n, t in network.state_dict().items()}


def test_vit(**args):
    torch.manual_seed(0)
    return state_of("test_vit", num_classes=2, **args)


test_vit.__test__ = False


def save(state, path):
    safetensors.torch.save_file({n: t.contiguous() for n, t in state.items()}, path)
    return path


# MoCo


@pytest.mark.parametrize(
    ("name", "channels", "mlp", "prefix"),
    [
        # CheSS: one channel, MoCo v2's head of two layers.
        ("resnet50", 1, True, "module."),
        ("resnet18", 3, True, "module."),
        ("resnet18", 1, False, ""),
        ("densenet121", 3, True, "module."),
        ("densenet121", 1, False, ""),
    ],
)
def test_a_moco_checkpoint_gives_torchvisions_features_through_timm(
    tmp_path, name, channels, mlp, prefix
):
    query = torchvision_network(name, channels=channels, seed=0)
    key = torchvision_network(name, channels=channels, seed=1)
    torch.save(moco_checkpoint(query, key, mlp=mlp, prefix=prefix), tmp_path / "a.pth.tar")
    pictures = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(2))

    converted = convert(tmp_path / "a.pth.tar")
    with torch.no_grad():
        found = timm_model(converted)(pictures)

    expected = features(query, pictures)
    assert converted.architecture == name
    assert converted.model_args == {"in_chans": channels}
    assert converted.num_classes == 0
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_a_moco_report_names_what_was_dropped(tmp_path):
    query = torchvision_network("resnet18", channels=1, seed=0)
    key = torchvision_network("resnet18", channels=1, seed=1)
    torch.save(moco_checkpoint(query, key), tmp_path / "a.pth.tar")
    report = convert(tmp_path / "a.pth.tar").report
    assert report.layout == "moco"
    assert report.takes == "encoder_q"
    # 20 convolutions, 20 batch norms of five tensors each.
    assert report.used == 120
    assert report.dropped == {
        "pretraining head": 4,
        "momentum encoder": 124,
        "queue": 2,
        "training state": 1,
    }
    assert report.tensors == 120 + 4 + 124 + 2 + 1
    assert (report.missing, report.unexpected, report.filled) == ((), (), ())
    assert report.dtypes == {"float32": 120 - 20 + 4 + 124 - 20 + 1 + 1, "int64": 41}


def test_the_momentum_encoder_is_taken_only_if_it_is_asked_for(tmp_path):
    query = torchvision_network("resnet18", channels=1, seed=0)
    key = torchvision_network("resnet18", channels=1, seed=1)
    torch.save(moco_checkpoint(query, key), tmp_path / "a.pth.tar")
    by_rule = convert(tmp_path / "a.pth.tar").state
    asked = convert(tmp_path / "a.pth.tar", takes="encoder_k").state
    assert torch.equal(by_rule["conv1.weight"], query.conv1.weight)
    assert torch.equal(asked["conv1.weight"], key.conv1.weight)
    with pytest.raises(UnknownName, match="holds no encoder of this name"):
        convert(tmp_path / "a.pth.tar", takes="teacher")


def test_a_head_of_pretraining_is_never_kept_as_a_classifier(tmp_path):
    query = torchvision_network("resnet18", channels=1)
    torch.save(moco_checkpoint(query, query, mlp=False), tmp_path / "a.pth.tar")
    with pytest.raises(KeyMismatch, match=r"2 missing \(fc.bias, fc.weight\)"):
        convert(tmp_path / "a.pth.tar", num_classes=1000)


# timm and torchvision


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_a_torchvision_checkpoint_gives_its_features_through_timm(tmp_path, name, nest):
    network = torchvision_network(name, channels=3)
    state = network.state_dict()
    torch.save({nest: state} if nest else state, tmp_path / "a.pth")
    converted = convert(tmp_path / "a.pth")
    pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = timm_model(converted)(pictures)
    expected = features(network, pictures)
    assert converted.report.layout == "torchvision"
    assert converted.report.dropped == {"classification head": 2}
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_old_names_of_densenet_are_translated(tmp_path):
    network = torchvision_network("densenet121", channels=3)
    old = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[f"module.densenet121.{name.replace('classifier', 'classifier.0')}"] = tensor
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({"state_dict": old}, tmp_path / "a.pth.tar")
    converted = convert(tmp_path / "a.pth.tar")
    filled = [n for n in network.state_dict() if n.endswith("num_batches_tracked")]
    assert sorted(converted.report.filled) == sorted(filled)
    for name, tensor in network.state_dict().items():
        if name in filled:
            assert converted.state[name] == 0
        elif not name.startswith("classifier"):
            assert torch.equal(converted.state[name], tensor)


def test_a_pickled_torchvision_module_converts(tmp_path):
    network = torchvision_network("resnet18", channels=3)
    torch.save(network, tmp_path / "a.pt")
    converted = convert(tmp_path / "a.pt")
    assert converted.architecture == "resnet18"
    assert torch.equal(converted.state["layer4.1.conv2.weight"], network.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet18", {}),
        ("resnet34", {}),
        ("resnet50", {}),
        ("resnet101", {}),
        ("densenet121", {}),
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch16_224", {"img_size": 512}),
        ("vit_base_patch16_224", {"global_pool": "avg"}),
        ("vit_large_patch16_224", {}),
        ("vit_base_patch32_224", {}),
        ("vit_small_patch14_dinov2", {}),
        ("vit_base_patch14_dinov2", {"img_size": 224}),
        ("vit_base_patch14_reg4_dinov2", {}),
        ("vit_large_patch14_dinov2", {}),
        ("vit_large_patch14_dinov2", {"patch_size": 16, "img_size": 512}),
        ("eva02_tiny_patch14_224", {"patch_size": 16, "ref_feat_shape": (14, 14)}),
        ("eva02_base_patch14_224", {"patch_size": 16, "ref_feat_shape": (14, 14)}),
        ("vit_base_patch32_clip_224", {}),
        ("vit_large_patch16_siglip_384", {}),
        ("samvit_base_patch16", {}),
        ("swin_tiny_patch4_window7_224", {}),
        ("swin_base_patch4_window7_224", {}),
        ("swin_large_patch4_window12_384", {}),
        ("convnext_tiny", {}),
        ("convnext_base", {}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_is_read_from_the_shapes(name, args, channels):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0, in_chans=channels, **args)
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    assert network_of(shapes) == (name, {"in_chans": channels, **args})
    assert detect(shapes).name in ("timm", "torchvision")


def test_a_vit_of_another_image_size_converts(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=96, in_chans=1, num_classes=14
    ).eval()
    save(network.state_dict(), tmp_path / "a.safetensors")
    converted = convert(tmp_path / "a.safetensors")
    pictures = torch.randn(1, 1, 96, 96)
    with torch.no_grad():
        found = timm_model(converted)(pictures)
        expected = network.forward_head(network.forward_features(pictures), pre_logits=True)
    assert converted.architecture == "vit_tiny_patch16_224"
    assert converted.model_args == {"in_chans": 1, "img_size": 96}
    assert torch.equal(found, expected)


def test_a_classification_head_is_kept_on_request(tmp_path):
    state = test_vit()
    path = save(state, tmp_path / "a.safetensors")
    kept = convert(path, architecture="test_vit", num_classes=2)
    dropped = convert(path, architecture="test_vit")
    assert kept.num_classes == 2
    assert torch.equal(kept.state["head.weight"], state["head.weight"])
    assert set(kept.state) - set(dropped.state) == {"head.weight", "head.bias"}
    with pytest.raises(KeyMismatch, match=r"head.bias: \[2\] instead of \[14\]"):
        convert(path, architecture="test_vit", num_classes=14)


# Refusals


def test_half_a_state_dict_is_refused_with_counts_and_names(tmp_path):
    state = state_of("resnet18", num_classes=0)
    half = {n: t for n, t in state.items() if not n.startswith(("layer3.1", "layer4.1"))}
    path = save(half, tmp_path / "half.safetensors")
    with pytest.raises(KeyMismatch) as error:
        convert(path, architecture="resnet18")
    assert str(error.value) == (
        f"{path}: sets 96 of 120 tensors of resnet18: 24 missing (layer3.1.bn1.bias, "
        "layer3.1.bn1.num_batches_tracked, layer3.1.bn1.running_mean and 21 more). "
        "Check that the architecture is the one that the file was trained with."
    )


def test_a_wrong_architecture_is_refused(tmp_path):
    path = save(state_of("resnet18", num_classes=0), tmp_path / "a.safetensors")
    with pytest.raises(KeyMismatch, match="tensors of resnet34: 96 missing"):
        convert(path, architecture="resnet34")
    with pytest.raises(UnknownName, match=r"resnet81.*Did you mean"):
        convert(path, architecture="resnet81")


def test_a_claimed_number_of_channels_is_held_to(tmp_path):
    path = save(test_vit(in_chans=1), tmp_path / "a.safetensors")
    assert convert(path, architecture="test_vit").model_args == {"in_chans": 1}
    with pytest.raises(KeyMismatch, match=r"\[64, 1, 16, 16\] instead of \[64, 3, 16, 16\]"):
        convert(path, architecture="test_vit", model_args={"in_chans": 3})


def test_a_claimed_image_size_is_held_to(tmp_path):
    path = save(test_vit(img_size=224), tmp_path / "a.safetensors")
    said = convert(path, architecture="test_vit", model_args={"img_size": 224})
    assert said.model_args == {"in_chans": 3, "img_size": 224}
    with pytest.raises(KeyMismatch, match=r"pos_embed: \[1, 197, 64\] instead of \[1, 101, 64\]"):
        convert(path, architecture="test_vit")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("norm.bias", float("inf"), r"NaN or infinite values in 1 of 78 tensors \(norm.bias\)"),
        ("pos_embed", float("nan"), r"NaN or infinite values in 1 of 78 tensors \(pos_embed\)"),
        ("blocks.2.attn.qkv.weight", 0.0, "nothing but zeros in 1 of 78 tensors"),
    ],
)
def test_weights_that_cannot_work_are_refused(tmp_path, name, value, message):
    state = test_vit()
    state[name] = torch.full_like(state[name], value)
    path = save(state, tmp_path / "a.safetensors")
    with pytest.raises(KeyMismatch, match=message):
        convert(path, architecture="test_vit")


def test_a_value_too_large_for_the_wanted_type_is_refused(tmp_path):
    state = test_vit()
    state["norm.bias"] = state["norm.bias"].double() + 1e300
    path = save(state, tmp_path / "a.safetensors")
    assert convert(path, architecture="test_vit", dtype=None).state["norm.bias"].max() == 1e300
    with pytest.raises(KeyMismatch, match="NaN or infinite values in 1 of 78"):
        convert(path, architecture="test_vit")


def test_zero_biases_and_zero_batch_norm_weights_are_no_damage(tmp_path):
    network = torchvision.models.resnet18(weights=None, zero_init_residual=True)
    path = save(network.state_dict(), tmp_path / "a.safetensors")
    assert not convert(path).state["layer1.0.bn2.weight"].any()


def test_two_sets_of_weights_are_never_chosen_between(tmp_path):
    state = test_vit()
    ema = {n: t * 0.5 for n, t in state.items()}
    torch.save({"model": state, "model_ema": ema}, tmp_path / "a.pth")
    with pytest.raises(KeyMismatch, match="several sets of weights: model, model_ema"):
        convert(tmp_path / "a.pth", architecture="test_vit")
    taken = convert(tmp_path / "a.pth", architecture="test_vit", takes="model_ema")
    assert torch.equal(taken.state["pos_embed"], ema["pos_embed"])
    assert taken.report.dropped == {"another set of weights": 80, "classification head": 2}


def test_a_pickle_with_code_is_refused_and_described(tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("this must not be printed",)

    torch.save({"state_dict": test_vit(), "z": Payload()}, tmp_path / "a.pth")
    with pytest.raises(UnsafeCheckpoint, match=r"names code: builtins\.print"):
        convert(tmp_path / "a.pth", architecture="test_vit")
    report = inspect(tmp_path / "a.pth")
    assert report.suspicious == ("builtins.print",)
    assert report.problem == "it names code: builtins.print; nothing was run"


def test_keys_of_no_known_layout_are_named(tmp_path):
    path = save({"generator.0.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(UnknownLayout, match=r"no known layout has keys like generator\.0\.weight"):
        convert(path)
    with pytest.raises(UnknownName, match="no layout of this name"):
        convert(path, layout="moc")


# What comes out


def test_half_precision_is_cast_to_float32_unless_told(tmp_path):
    state = {n: t.half() for n, t in test_vit().items()}
    path = save(state, tmp_path / "a.safetensors")
    cast = convert(path, architecture="test_vit")
    kept = convert(path, architecture="test_vit", dtype=None)
    assert {t.dtype for t in cast.state.values()} == {torch.float32}
    assert torch.equal(cast.state["norm.weight"], state["norm.weight"].float())
    assert {t.dtype for t in kept.state.values()} == {torch.float16}
    assert cast.report.dtypes == {"float16": 80}
    assert (cast.report.cast_to, kept.report.cast_to) == ("float32", None)


def test_converting_twice_gives_the_same_bytes(tmp_path):
    torch.save({"model": test_vit()}, tmp_path / "a.pth")
    files = []
    for n in range(2):
        state = convert(tmp_path / "a.pth", architecture="test_vit").state
        safetensors.torch.save_file(state, tmp_path / f"{n}", metadata={"format": "pt"})
        files.append((tmp_path / f"{n}").read_bytes())
    assert files[0] == files[1]


def test_a_small_view_of_a_large_storage_is_converted_alone(tmp_path):
    state = test_vit()
    state["norm.bias"] = torch.arange(1_000_000.0)[5:69]
    torch.save(state, tmp_path / "a.pth")
    converted = convert(tmp_path / "a.pth", architecture="test_vit").state
    assert converted["norm.bias"].tolist() == list(range(5, 69))
    assert sum(t.untyped_storage().nbytes() for t in converted.values()) < 3_000_000


# The parts


def test_every_layout_has_its_own_name_and_says_what_it_takes():
    assert {"moco", "timm", "torchvision"} <= set(layouts)
    for name, layout in layouts.items():
        assert layout.name == name
        assert layout.source.startswith("https://")
        assert layout.rule


def test_a_keymap_strips_drops_selects_and_renames():
    keymap = KeyMap(
        wrappers=("module.", "state_dict."),
        drop=(Drop("queue", "queue"), Drop("head", r"net\.fc\..+")),
        select="net.",
        rename=((r"^a\.", "b."),),
    )
    found = keymap.apply(["state_dict.module.net.a.w", "queue", "net.fc.w", "module.other.w"])
    assert found.used == {"b.w": Taken(("state_dict.module.net.a.w",))}
    assert found.dropped == {"queue": ("queue",), "head": ("net.fc.w",)}
    assert found.unexpected == ("module.other.w",)


def test_a_keymap_makes_one_tensor_of_several_and_several_of_one():
    keymap = KeyMap(
        wrappers=("net.",),
        make=(
            FUSED_QKV,
            Make(parts=("pos", "cls"), gives={"pos": lambda p, c: p[1:], "cls": torch.add}),
        ),
    )
    names = ["net.0.attn.value.bias", "net.0.attn.key.bias", "net.0.attn.query.bias", "pos", "cls"]
    found = keymap.apply(names).used
    held = {n: torch.full((2,), float(i)) for i, n in enumerate(names)}
    assert sorted(found) == ["0.attn.qkv.bias", "cls", "pos"]
    assert found["0.attn.qkv.bias"].tensor(held).tolist() == [2, 2, 1, 1, 0, 0]
    assert found["pos"].tensor(held).tolist() == [3]
    assert found["cls"].tensor(held).tolist() == [7, 7]


def test_parts_that_are_not_all_there_are_left_as_they_are():
    found = KeyMap(make=(FUSED_QKV,)).apply(["0.attn.query.bias", "0.attn.key.bias"]).used
    assert sorted(found) == ["0.attn.key.bias", "0.attn.query.bias"]


def test_a_made_tensor_never_replaces_one_of_the_file():
    names = [f"0.attn.{part}.bias" for part in ("query", "key", "value", "qkv")]
    with pytest.raises(NameClash, match=r"are both '0.attn.qkv.bias'"):
        KeyMap(make=(FUSED_QKV,)).apply(names)


def test_a_keymap_refuses_two_names_that_become_one():
    with pytest.raises(NameClash, match=r"'module.x' and 'x' are both 'x'"):
        KeyMap(wrappers=("module.",)).apply(["module.x", "x"])


def test_inspect_describes_a_file_that_cannot_be_converted(tmp_path):
    state = state_of("resnet18", num_classes=1000)
    state.pop("layer4.1.conv2.weight")
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    report = inspect(save(state, tmp_path / "a.safetensors"))
    assert report.container == "safetensors"
    assert (report.layout, report.architecture) == ("torchvision", "resnet18")
    assert report.used == 119
    assert report.missing == ("layer4.1.conv2.weight",)
    assert report.nonfinite == ("conv1.weight",)
    assert report.problem == (
        "sets 119 of 120 tensors of resnet18: 1 missing (layer4.1.conv2.weight)"
    )
    assert json.loads(json.dumps(report.to_dict()))["used"] == 119


def test_a_report_is_readable(tmp_path):
    path = save(state_of("resnet18", num_classes=1000), tmp_path / "a.safetensors")
    lines = inspect(path).lines()
    assert lines[0] == f"file          {path} ({path.stat().st_size:,} bytes, safetensors)"
    assert lines[2:] == [
        "code          none; nothing was run",
        "tensors       122 (102 float32, 20 int64)",
        "licence       unknown: no card has this sha256",
        "layout        torchvision, weights",
        "rule          the only set of weights in the file; takes= says which if there are several",
        "architecture  resnet18 (in_chans=3)",
        "used          120, cast to float32",
        "dropped       2 classification head",
        "verdict       converts: every encoder tensor is set from the file",
    ]


def test_a_file_that_a_card_knows_is_named_with_its_licence():
    record = catalog.checkpoint("cxr_resnet18.moco_open")
    report = inspect(hub.fetch(record.source, name=record.name))
    assert (report.known_as, report.licence) == (record.name, "apache-2.0")
    assert "licence       apache-2.0 (the file of cxr_resnet18.moco_open)" in report.lines()


def test_a_masked_autoencoder_gives_its_encoder_and_drops_its_decoder_by_name(tmp_path):
    encoder = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=0), 7)
    state = dict(encoder.state_dict())
    state["mask_token"] = torch.ones(1, 1, 64)
    state["decoder_pos_embed"] = torch.ones(1, 197, 64)
    for name, size in (("embed", (64, 192)), ("pred", (768, 64)), ("norm", (64,))):
        state[f"decoder_{name}.weight"] = torch.ones(size)
        state[f"decoder_{name}.bias"] = torch.ones(size[0])
    state["decoder_blocks.0.norm1.weight"] = torch.ones(64)
    path = tmp_path / "mae.pth"
    torch.save({"model": state, "epoch": 800, "scaler": {"scale": 65536.0}}, path)
    converted = convert(path)
    assert (converted.report.layout, converted.architecture) == ("mae", "vit_tiny_patch16_224")
    assert {k: v for k, v in encoder.state_dict().items() if not v.equal(converted.state[k])} == {}
    assert converted.state.keys() == encoder.state_dict().keys()
