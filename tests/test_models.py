"""Every `cxr_*` name and timm's whole model surface. Networks are on the meta device or tiny."""

import dataclasses
import re
from pathlib import Path

import pytest
import timm
import torch
from encoders import largest_difference, random_encoder, small
from safetensors.torch import save_file

from cxr_foundation import catalog
from cxr_foundation.models import architectures
from cxr_foundation.models.architectures import STOCK
from cxr_foundation.models.meta import on_meta

NAMES = sorted(STOCK)
FIXED_SIZE = [n for n in NAMES if n.startswith(("cxr_vit", "cxr_swin", "cxr_eva"))]
MILLIONS = {
    "cxr_convnext_b": 87.6,
    "cxr_convnext_ti": 27.8,
    "cxr_densenet121": 7.0,
    "cxr_eva_x_b": 85.9,
    "cxr_eva_x_s": 21.7,
    "cxr_eva_x_ti": 5.5,
    "cxr_resnet101": 42.5,
    "cxr_resnet18": 11.2,
    "cxr_resnet50": 23.5,
    "cxr_swin_b": 86.7,
    "cxr_swin_l": 195.2,
    "cxr_vit_b": 85.8,
    "cxr_vit_b14": 86.6,
    "cxr_vit_b14_reg4": 86.6,
    "cxr_vit_b16_clip": 86.4,
    "cxr_vit_b16_siglip": 93.5,
    "cxr_vit_b32": 87.5,
    "cxr_vit_l": 303.3,
    "cxr_vit_l14": 304.4,
    "cxr_vit_l16": 304.2,
    "cxr_vit_l16_reg4": 304.6,
    "cxr_vit_l16_siglip": 316.7,
    "cxr_vit_s": 21.7,
    "cxr_vit_s14": 22.1,
    "cxr_vit_s14_reg4": 22.1,
    "cxr_vit_ti": 5.5,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_memory(name, **args):
    """A network without memory, and pictures without any for it."""
    with on_meta():
        model = timm.create_model(name, pretrained=False, **args)
        cfg = model.pretrained_cfg
        channels = args.get("in_chans", cfg["input_size"][0])
        size = args.get("img_size", cfg["input_size"][1:])
        size = (size, size) if isinstance(size, int) else size
        return model, torch.empty(2, channels, *size)


def test_the_names_are_those_of_the_design():
    assert sorted(n for n in timm.list_models("cxr_*")) == sorted(MILLIONS) == NAMES
    assert sorted(timm.list_models(module="architectures")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_has_the_size_that_its_name_promises(name):
    model, _ = without_memory(name)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    stem = next(p for p in model.parameters() if p.ndim == 4)
    # A one-channel stem has two thirds of its weights less.
    grey = (3 - stem.shape[1]) * stem[:, :1].numel() / 1e6
    assert millions + grey == pytest.approx(MILLIONS[name], abs=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_channels_and_classes_can_be_chosen_and_the_head_reset(name):
    model, pictures = without_memory(name, in_chans=2, num_classes=5, **small(name))
    assert model(pictures).shape == (2, 5)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(pictures).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_and_intermediates(name):
    model, pictures = without_memory(name, features_only=True, **small(name))
    channels = -1 if name.startswith("cxr_swin") else 1  # timm's Swin keeps channels last
    assert [m.shape[channels] for m in model(pictures)] == model.feature_info.channels()
    whole, _ = without_memory(name, **small(name))
    final, intermediates = whole.forward_intermediates(pictures)
    assert final.shape[0] == 2 and len(intermediates) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_can_be_switched_on(name):
    model, _ = without_memory(name, **small(name))
    model.set_grad_checkpointing(True)
    model.set_grad_checkpointing(False)


@pytest.mark.parametrize("name", FIXED_SIZE)
def test_the_image_size_can_be_chosen(name):
    size = 768 if name == "cxr_swin_l" else 448
    model, pictures = without_memory(name, img_size=size, **small(name))
    assert tuple(pictures.shape[-2:]) == (size, size)
    assert model(pictures).shape == (2, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_loading_is_bit_equal_to_timms_own(name, tmp_path):
    stock, args = STOCK[name]
    size = {"img_size": 224} if name in FIXED_SIZE else {}
    shrink = {**args, **small(name), **size, "in_chans": 3}
    weights = tmp_path / "model.safetensors"
    save_file(random_encoder(stock, **shrink).state_dict(), weights)
    own = timm.create_model(
        stock,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights), "num_classes": 0},
        num_classes=0,
        **shrink,
    )
    ours = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights)},
        num_classes=0,
        **shrink,
    )
    assert ours.state_dict().keys() == own.state_dict().keys()
    assert not any(t.is_meta for t in (*ours.parameters(), *ours.buffers()))
    assert [(n, b.dtype) for n, b in ours.named_buffers()] == [
        (n, b.dtype) for n, b in own.named_buffers()
    ]
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert largest_difference(ours.eval()(pictures), own.eval()(pictures)) == 0


def test_every_card_has_its_entry_in_timm_and_no_other_has():
    cards = catalog.checkpoints()
    tagged = {
        f"{name}.{tag}"
        for name, cfg in architectures.default_cfgs.items()
        for tag in cfg.cfgs
        if tag
    }
    assert tagged == set(cards)
    loadable = {
        n
        for n, c in cards.items()
        if c.source.published or (c.conversion.layout is not None and c.source.kind != "ask")
    }
    assert set(timm.list_pretrained("cxr_*")) == loadable
    assert {c.name for c in catalog.list_models(pretrained=True)} == loadable
    for card in cards.values():
        if card.default:
            assert timm.get_pretrained_cfg(card.architecture).tag == card.name.partition(".")[2]


@pytest.mark.parametrize("name", sorted(catalog.checkpoints()))
def test_the_data_config_is_the_cards_contract(name):
    card = catalog.checkpoint(name)
    model, _ = without_memory(name)
    config = timm.data.resolve_model_data_config(model)
    told = card.contract.to_timm()
    assert {key: config[key] for key in told} == told
    assert model.pretrained_cfg.get("license") == card.licences.weights
    assert model.num_features == card.num_features
    assert model.num_classes == 0


def test_a_card_that_does_not_know_mean_and_std_invents_none(monkeypatch):
    card = next(iter(catalog.checkpoints().values()))
    unknown = dataclasses.replace(card.contract, mean=None, std=None)
    cfg = architectures.cfg_of(dataclasses.replace(card, contract=unknown))
    assert cfg.mean is None and cfg.std is None


def test_a_compiled_model_gives_the_same_features():
    model = random_encoder("cxr_resnet18", in_chans=1, **small("cxr_resnet18"))
    pictures = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")(pictures)
        assert largest_difference(compiled, model(pictures)) == 0


def test_every_name_takes_three_lines():
    source = Path(architectures.__file__).read_text()
    entry = re.compile(
        r"@register_model\n"
        r"def (cxr_\w+)\(pretrained: bool = False, \*\*kwargs: Any\) -> nn.Module:\n"
        r'    """.+"""\n    return build\(\s*"(cxr_\w+)", \*STOCK\["(cxr_\w+)"\], '
        r"pretrained=pretrained, \*\*kwargs\s*\)\n"
    )
    found = entry.findall(source)
    assert sorted(f[0] for f in found) == NAMES
    assert all(len(set(f)) == 1 for f in found)
