"""The process that writes figures."""

import os
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import SCREEN_DPI, figure_style, save_figure
from leo_lightning.runs.pictures.painter import Painter


def curve() -> Figure:
    with figure_style():
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([1, 2, 4], label="a curve")
        figure.legend(loc="outside lower center")
        return figure


def test_a_figure_is_the_same_file_wherever_it_is_written(tmp_path: Path):
    """Catches a process with another style, or another resolution; one that stays; and a lost error."""
    painter = Painter()
    found = painter.paint(curve(), tmp_path / "there.png")
    lost = painter.paint(curve(), tmp_path / "no folder" / "figure.png")
    assert painter._process is not None
    (number,) = painter._process._processes
    painter.no_more()
    found.result(timeout=120)
    with figure_style():
        save_figure(curve(), tmp_path / "here.png", SCREEN_DPI)
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    with pytest.raises(InputError):
        lost.result(timeout=120)
    deadline = time.monotonic() + 60
    while number in map(int, filter(str.isdigit, os.listdir("/proc"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
