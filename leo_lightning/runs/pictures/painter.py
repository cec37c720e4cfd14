"""Painter: a process that turns figures into files while training goes on."""

import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.common.figure_style import SCREEN_DPI, figure_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Painter:
    """Starts the process with the first figure, of each time that there are some.

    It needs matplotlib alone, and so no second to start.
    """

    def __init__(self) -> None:
        self._process: ProcessPoolExecutor | None = None

    def paint(self, figure: "Figure", path: Path) -> "Future[None]":
        """Begin to write a figure for a screen."""
        if self._process is None:
            self._process = ProcessPoolExecutor(1, get_context("spawn"), initializer=_step_back)
        return self._process.submit(_paint, figure, path)

    def no_more(self) -> None:
        """Let the process end once it has written what it was given: a killed training leaves it no work."""
        if self._process is not None:
            self._process.shutdown(wait=False)
            self._process = None


def _step_back() -> None:
    """Leave the cores to the training, and Ctrl-C to the first process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)


def _paint(figure: "Figure", path: Path) -> None:
    with figure_style():
        save_figure(figure, path, SCREEN_DPI)
