"""The input contract refuses what would have to be guessed."""

import pytest

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError

GREY = {"channels": 1, "size": [512, 512], "mean": [0.658], "std": [0.221]}


def test_a_contract_survives_json():
    contract = InputContract.from_dict(GREY | {"intensity": "percentile", "percentile": [0, 99]})
    assert InputContract.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "contract: channels: 2 is neither 1 nor 3"),
        ({"size": None}, "contract: size: is not a list"),
        ({"size": [512]}, "contract: size: (512,) is not two whole numbers from 16 to 4096"),
        ({"size": [512, "a"]}, "contract: size: holds something that is not a number"),
        ({"percentile": "0-99"}, "contract: percentile: is not a list"),
        ({"percentile": [0, 99]}, "contract: percentile: goes with intensity 'percentile' and"),
        ({"intensity": "percentile", "percentile": [99, 0]}, "is not 0 <= low < high <= 100"),
        ({"mean": [0.5, 0.5]}, "contract: mean: 2 values for 1 channels"),
        ({"mean": [float("nan")]}, "contract: mean: (nan,) has a value that is not finite"),
        ({"std": [0]}, "contract: std: (0,) has a value that is not above 0"),
        ({"aspect": "stretch"}, "contract: aspect: 'stretch' is not one of squash, pad, crop"),
        ({"resize": 600}, "contract: resize: has no meaning with aspect 'squash'"),
        ({"polarity": "bone_dark"}, "contract: polarity: 'bone_dark' is not 'bone_bright'"),
        ({"gamma": 2}, "contract: gamma: unknown key"),
        ({"normalise_first": "no"}, "contract: normalise_first: is neither true nor false"),
    ],
)
def test_a_contract_that_is_wrong_is_refused_by_key(change, message):
    with pytest.raises(ContractError) as caught:
        InputContract.from_dict(GREY | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["channels", "size", "mean", "std"])
def test_a_missing_key_is_named(key):
    with pytest.raises(ContractError, match=f"contract: {key}: missing"):
        InputContract.from_dict({k: v for k, v in GREY.items() if k != key})


@pytest.mark.parametrize("change", [{"mean": None}, {"std": None}, {"intensity": "unknown"}])
def test_a_contract_with_an_unknown_is_not_complete(change):
    assert InputContract.from_dict(GREY).complete
    assert not InputContract.from_dict(GREY | change).complete


def test_timm_is_told_what_it_can_say():
    contract = InputContract.from_dict(GREY | {"aspect": "crop", "resize": 640})
    assert contract.to_timm() == {
        "input_size": (1, 512, 512),
        "interpolation": "bilinear",
        "crop_mode": "center",
        "crop_pct": 0.8,
        "mean": (0.658,),
        "std": (0.221,),
    }


def test_an_unknown_mean_is_left_out_and_never_replaced():
    assert "mean" not in InputContract.from_dict(GREY | {"mean": None}).to_timm()
