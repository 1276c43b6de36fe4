import pytest

from cxr_foundation.errors import UnknownName
from cxr_foundation.registry import Registry, closest, discover


def test_a_registered_thing_is_found_by_name():
    layouts = Registry("layout")
    layouts.register("moco")(1)
    assert (layouts["moco"], list(layouts), len(layouts), "moco" in layouts) == (
        1,
        ["moco"],
        1,
        True,
    )


def test_a_name_is_taken_once():
    layouts = Registry("layout")
    layouts.register("moco")(1)
    with pytest.raises(ValueError, match="two layouts are called 'moco'"):
        layouts.register("moco")(2)


def test_an_unknown_name_is_answered_with_the_closest():
    layouts = Registry("layout")
    layouts.register("moco")(1)
    with pytest.raises(UnknownName) as caught:
        layouts["moko"]
    assert str(caught.value) == "moko: no layout of this name. Did you mean 'moco'?"


def test_nothing_is_suggested_for_a_name_like_none():
    assert closest("zzzz", ["moco"]) == ""


def test_discover_imports_every_module_of_a_package():
    assert "cxr_foundation.images.phantom" in discover("cxr_foundation.images")
