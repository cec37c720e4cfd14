"""Cells of CSV files."""

import pytest

from leo_lightning.common.spreadsheet import csv_cell


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", '=HYPERLINK("http://x")']
)
def test_a_formula_stays_text(formula: str):
    """Catches a class name that a spreadsheet evaluates."""
    assert csv_cell(formula) == f"'{formula}"


def test_control_characters_are_replaced():
    """Catches names of folders that a terminal obeys when it shows the file."""
    assert csv_cell("\x1b[2J\n") == "?[2J?"


@pytest.mark.parametrize(
    "value", ["cat", "-1", "+1.5e3", "-0.25", "=", "@", "", "a=b", "n01-2", -0.5, 3, None]
)
def test_numbers_and_ordinary_names_stay_as_they_are(value: object):
    """Catches negative labels and numbers that cannot be read back."""
    assert csv_cell(value) is value
