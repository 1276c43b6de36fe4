"""The import hook: either order, no cost before its time, spawned workers, pickles, reloads."""

import multiprocessing
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from encoders import largest_difference, random_encoder, small

HEAVY = ("torch", "timm", "transformers", "torchvision", "huggingface_hub", "numpy", "yaml")


def python(code):
    """What a fresh process prints last."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


def test_importing_the_package_imports_no_framework():
    code = f"import sys, cxr_foundation; print(sorted({HEAVY!r} & sys.modules.keys()))"
    assert python(code.replace(repr(HEAVY), repr(set(HEAVY)))) == "[]"


def test_the_check_can_fail():
    code = f"import sys, numpy, cxr_foundation; print(sorted({set(HEAVY)!r} & sys.modules.keys()))"
    assert python(code) == "['numpy']"


def test_transformers_alone_does_not_import_timm():
    assert (
        python("""
        import sys, cxr_foundation, transformers.models.auto
        from transformers import AutoConfig
        print({"timm"} & sys.modules.keys())
    """)
        == "set()"
    )


@pytest.mark.parametrize(
    "imports", ["timm, cxr_foundation", "cxr_foundation, timm", "cxr_foundation, timm.layers"]
)
def test_timm_knows_the_names_in_either_order(imports):
    assert (
        python(f"""
        import {imports}
        import timm
        print(len(timm.list_models("cxr_*")), timm.create_model("cxr_resnet18").num_features)
    """)
        == "26 512"
    )


@pytest.mark.parametrize("first", ["cxr_foundation", "transformers"])
def test_transformers_takes_our_processor_in_either_order(first):
    assert (
        python(f"""
        import {first}
        from transformers import TimmWrapperConfig, AutoImageProcessor
        import cxr_foundation
        from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
        print({{c.__name__ for c in IMAGE_PROCESSOR_MAPPING[TimmWrapperConfig].values()}})
    """)
        == "{'CxrImageProcessor'}"
    )


def test_the_hook_is_gone_when_both_are_there_and_was_there_before():
    assert (
        python("""
        import sys, cxr_foundation
        def hooks():
            return sum("cxr_foundation" in type(f).__module__ for f in sys.meta_path)
        seen = [hooks()]
        import timm
        seen.append(hooks())
        from transformers import TimmWrapperConfig
        print([*seen, hooks()])
    """)
        == "[1, 1, 0]"
    )


def test_a_reload_of_the_package_or_of_timm_registers_nothing_twice():
    assert (
        python("""
        import importlib, sys, cxr_foundation
        importlib.reload(cxr_foundation)
        hooks = sum("cxr_foundation" in type(f).__module__ for f in sys.meta_path)
        import timm, timm.models
        importlib.reload(timm.models)
        importlib.reload(cxr_foundation)
        print(hooks, len(timm.list_models("cxr_*")), timm.models.__spec__.loader is not None)
    """)
        == "1 26 True"
    )


def test_the_modules_loader_is_its_own_again():
    assert (
        python("""
        import cxr_foundation, timm.models
        import inspect
        print(vars(timm.models.__spec__.loader).keys() & {"exec_module"}, len(
            inspect.getsource(timm.models)) > 1000)
    """)
        == "set() True"
    )


def test_threads_that_import_timm_at_once_all_find_the_names():
    assert (
        python("""
        import threading, cxr_foundation
        found = []
        def use():
            import timm
            found.append(len(timm.list_models("cxr_*")))
        def load():
            from cxr_foundation.models import loading
            found.append(len(loading.STOCK))
        threads = [threading.Thread(target=t) for t in (use, load, use, load)]
        [t.start() for t in threads], [t.join() for t in threads]
        print(found)
    """)
        == "[26, 26, 26, 26]"
    )


def test_an_import_that_fails_fails_as_it_would_without_the_hook():
    assert (
        python("""
        import sys, cxr_foundation
        sys.path[:] = []
        try:
            import timm.models
        except ModuleNotFoundError as error:
            print(error.name)
    """)
        == "timm"
    )


def _features(model, pictures):
    import timm

    import cxr_foundation  # noqa: F401  (registers in the worker)

    with torch.no_grad():
        return model(pictures), timm.is_model("cxr_resnet18")


def test_models_travel_to_spawned_workers():
    model = random_encoder("cxr_resnet18", in_chans=1, **small("cxr_resnet18"))
    pictures = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found, registered = pool.apply(_features, (model, pictures))
    assert registered
    with torch.no_grad():
        assert largest_difference(found, model(pictures)) == 0


def test_models_can_be_pickled():
    model = random_encoder("cxr_vit_ti", in_chans=1, **small("cxr_vit_ti"))
    again = pickle.loads(pickle.dumps(model))
    assert again.pretrained_cfg == model.pretrained_cfg
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
