"""Albums: the pictures that a run drew during training."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leo_lightning.common.csv_files import read_rows
from leo_lightning.runs.folder import PICTURES

MOST = 12  # most steps shown in an album


class Picture(NamedTuple):
    """A picture or a table of one step."""

    step: int
    uri: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


class Album(NamedTuple):
    """Pictures of one kind."""

    name: str
    pictures: list[Picture]
    drawn: int  # number of steps drawn, of which at most `MOST` are shown


def read_albums(run: Path) -> dict[str, Album]:
    """Albums of a run folder by name."""
    folders = sorted(path for path in (run / PICTURES).glob("*/") if path.is_dir())
    albums = (_read(folder) for folder in folders)
    return {album.name: album for album in albums if album.pictures}


def _read(folder: Path) -> Album:
    steps: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):  # csv before png, so a picture replaces the numbers behind it
        if (match := re.fullmatch(r"step-(\d{1,12})\.(png|csv)", path.name)) and path.is_file():
            steps[int(match[1])] = path
    spread = np.linspace(0, len(steps) - 1, min(len(steps), MOST)).round().astype(int)
    pictures = [_picture(step, steps[step]) for step in np.array(sorted(steps))[spread].tolist()]
    return Album(folder.name, [picture for picture in pictures if picture], len(steps))


def _picture(step: int, path: Path) -> Picture | None:
    """None for an empty table."""
    if path.suffix == ".png":
        return Picture(step, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())
    rows = read_rows(path)
    cells = [[_short(cell) for cell in row.values()] for row in rows]
    return Picture(step, "", list(rows[0]), cells) if rows else None


def _short(cell: str) -> str:
    """Round a number with many digits to four."""
    return f"{float(cell):.4g}" if re.fullmatch(r"-?\d+\.\d{5,40}", cell) else cell
