"""One tree of errors; each says what was looked at, what is wrong, and what to do."""

import inspect
import pickle

import pytest

from cxr_foundation import errors


def all_errors():
    return [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]


def test_all_exported_errors_are_of_one_tree():
    assert {c.__name__ for c in all_errors()} == set(errors.__all__)
    assert all(issubclass(c, errors.CxrError) for c in all_errors())


def test_the_drawing_at_the_top_shows_every_class():
    for name in errors.__all__:
        assert name in (errors.__doc__ or ""), name


def test_a_message_is_subject_reason_remedy():
    error = errors.UnreadableImage("a.png", "is empty")
    assert str(error) == (
        "a.png: is empty. Open the file in a viewer; "
        "export it again if it does not open there either."
    )


def test_a_remedy_can_be_given():
    assert str(errors.UnknownName("x", "no model", "Try y.")) == "x: no model. Try y."


@pytest.mark.parametrize("cls", all_errors(), ids=lambda c: c.__name__)
def test_errors_cross_process_borders(cls):
    error = cls("file", "reason", "remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (cls, "file: reason. remedy")


def test_control_characters_never_reach_the_terminal():
    assert str(errors.BadIndex("a\x1b[31m.csv", "line\n2", "Mend it.")) == (
        "a?[31m.csv: line?2. Mend it."
    )
