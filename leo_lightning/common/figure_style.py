"""The look of all figures: legible in a column, distinct without colour vision, the same bytes each time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

REFERENCE = "#000000"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito: Color Universal Design, 2008; without their yellow, which is hard to see on white paper."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "osD^vPX<>*"
NAMED = 20  # up to this many classes get a colour each and are named in the figure
WIDTH = 7.0  # inches: the text width of a page, or both columns
PRINT_DPI = 250
SVG_DPI = 120
"""Resolution of rasterized points in an SVG; at `PRINT_DPI` the SVG would be larger than the PNG."""
SCREEN_DPI = 130  # resolution on a screen: 910 pixels for a figure of `WIDTH`

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
    "svg.fonttype": "path",
    "svg.hashsalt": "leo-lightning",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in this style, without a display, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def class_colours(count: int) -> list[Any]:
    """A colour for each of `count` classes; with more than 6 classes, readers also need the names."""
    import matplotlib

    if count <= len(COLOURS):
        return list(COLOURS[:count])
    if count <= 20:
        return [matplotlib.colormaps["tab20"](number) for number in range(count)]
    return [matplotlib.colormaps["turbo"](number / (count - 1)) for number in range(count)]


def as_written(name: str) -> str:
    """Return a name for matplotlib to draw as it is: a $ in it does not begin mathematics."""
    return name.replace("$", r"\$")


def dots(labels: Iterable[str], colours: Iterable[Any]) -> "list[Line2D]":
    """Legend handles: a dot of its colour for each label."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker="o", linestyle="", label=label)
        for label, colour in zip(labels, colours, strict=True)
    ]


def save_figure(figure: "Figure", path: Path, dpi: int | None = None) -> None:
    """Write a figure without date and version, so that the same figure is the same file.

    Args:
        figure: drawn within `figure_style`.
        path: the file, .png or .svg.
        dpi: pixels per inch; None for `PRINT_DPI`, or `SVG_DPI` in an SVG.
    """
    kind = path.suffix[1:]
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    dpi = dpi or {"svg": SVG_DPI, "png": PRINT_DPI}[kind]
    with whole_file(path) as part:
        figure.savefig(part, format=kind, metadata=metadata, dpi=dpi)
