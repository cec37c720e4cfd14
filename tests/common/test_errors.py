"""Checks of settings and names."""

import math

import pytest

from leo_lightning.common.errors import (
    InputError,
    check_least,
    check_positive,
    check_utf8,
    nearest,
    without_controls,
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_settings_must_be_finite(value: float):
    """Catches an infinite rate, which no comparison with its limit finds."""
    for check in (lambda: check_least(0, {"rate": value}), lambda: check_positive({"rate": value})):
        with pytest.raises(InputError, match=f"rate is {value}: it must be"):
            check()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("model.lr", "model.learning_rate"),
        ("lr", "model.learning_rate"),
        ("model.learning_rates", "model.learning_rate"),
        ("data.shots", "data.shot"),
        ("shots", "data.shot"),
        ("dat", "data"),
    ],
)
def test_the_nearest_field_is_named(name: str, meant: str):
    """Catches a section named in place of the field in it, and an abbreviation that nothing resembles."""
    known = ["model", "data", "model.learning_rate", "model.clip_norm", "data.shot"]
    assert nearest(name, known) == f"; did you mean {meant}?"


def test_names_are_utf8():
    """Catches a name that safetensors, torch and pages fail on, each in words of its own."""
    check_utf8("größe →")
    with pytest.raises(InputError, match=r"^n\?me: the name is not UTF-8"):
        check_utf8("n\udcffme")


def test_control_characters_are_not_shown():
    """Catches a name that colors the terminal, renames its window, adds a line, or cannot be encoded."""
    assert without_controls("a\x1b[31mred\x9b0m\r\n\u2028b\x7f\udcff") == "a?[31mred?0m???b??"
    assert (
        without_controls("été 日本\u3000نمی\u200cخواهم 👩\u200d🔬")
        == "été 日本\u3000نمی\u200cخواهم 👩\u200d🔬"
    )
