"""How figures look: legible in a column, told apart without colour vision, the same bytes each time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "#000000"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito: Color Universal Design, 2008; without their yellow, which white paper swallows."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "osD^vPX<>*"
NAMED = 20
"""As many classes have each a colour of its own, and their names in the figure."""
WIDTH = 7.0
"""Inches: a page's width of text, or both columns."""

SVG_DPI = 120
"""Of what is pixels in an SVG, thousands of points: as they would be in a PNG, it were the larger file."""
SCREEN_DPI = 130
"""Of what is looked at on a screen: 910 pixels for a figure of `WIDTH`."""

_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 250,
    "svg.fonttype": "path",
    "svg.hashsalt": "leo-lightning",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in this style, whatever a matplotlibrc says, and without a display."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def line_styles(groups: Sequence[str], reference: int | None = None) -> list[dict[str, Any]]:
    """How to draw each line: colour and dashes repeat after 24 lines at the earliest, markers after 10.

    Args:
        groups: of each line: the lines of a group share their colour, and differ in dashes and marker.
        reference: number of the line that the others are compared with: black, thick, and behind them.
    """
    colours: dict[str, str] = {}
    drawn: dict[str, int] = {}
    styles = []
    for number, group in enumerate(groups):
        style: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)]}
        if number == reference:
            style |= {"color": REFERENCE, "linestyle": "-", "linewidth": 2.4, "markersize": 6, "zorder": 2.5}
        else:
            colour = colours.setdefault(group, COLOURS[len(colours) % len(COLOURS)])
            dash = DASHES[drawn.get(colour, 0) % len(DASHES)]
            drawn[colour] = drawn.get(colour, 0) + 1
            style |= {"color": colour, "linestyle": dash, "zorder": 3.0}
        styles.append(style)
    return styles


def class_colours(count: int) -> list[Any]:
    """A colour for each of `count` classes; more than 6 need their names beside them to be told apart."""
    import matplotlib

    if count <= len(COLOURS):
        return list(COLOURS[:count])
    if count <= 20:
        return [matplotlib.colormaps["tab20"](number) for number in range(count)]
    return [matplotlib.colormaps["turbo"](number / (count - 1)) for number in range(count)]


def save_figure(figure: "Figure", path: Path, kind: str, dpi: int | None = None) -> None:
    """Write a figure; no date and no version in it, so that the same figure is the same file.

    Args:
        figure: drawn within `figure_style`.
        path: the file.
        kind: png or svg.
        dpi: pixels per inch; None: those of print, or in an SVG `SVG_DPI`.
    """
    left_out = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    usual = SVG_DPI if kind == "svg" else _SETTINGS["savefig.dpi"]
    figure.savefig(path, format=kind, metadata=left_out, dpi=dpi or usual)
