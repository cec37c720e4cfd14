"""The style of figures."""

from io import BytesIO

from matplotlib.figure import Figure

from leo_lightning.commands.figures.episode import _short
from leo_lightning.common.figure_style import figure_style
from leo_lightning.runs.pictures.codes import shortened


def test_names_are_drawn_as_they_are():
    """Catches a class name that matplotlib takes for mathematics, which ends in a traceback."""
    with figure_style():
        figure = Figure()
        for shorten in (_short, shortened):
            figure.text(0, 0, shorten("$\\frac$"))
        figure.savefig(BytesIO(), format="svg")
    assert _short("$\\a$") == shortened("$\\a$") == "\\$\\a\\$"
