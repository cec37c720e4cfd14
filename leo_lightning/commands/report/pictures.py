"""Pictures that a run has drawn of itself as it went on, by what they show."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from leo_lightning.commands.report.tables import read_rows

FOLDER = "pictures"
MOST = 12
"""Steps of which one kind of picture is shown."""
ROWS = 20
"""Of a table."""
PNG = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
"""How a whole file begins and ends."""


class Picture(NamedTuple):
    """What was drawn at a step: a picture, or a table."""

    step: int
    uri: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    left_out: int = 0
    """Rows that are not shown."""


class Album(NamedTuple):
    """One kind of picture, step by step."""

    name: str
    pictures: list[Picture]
    drawn: int
    """How many steps there are, more than are shown."""


def read_albums(run: Path) -> dict[str, Album]:
    """All kinds of picture in a run's folder, by name."""
    folders = sorted(path for path in (run / FOLDER).glob("*/") if path.is_dir())
    albums = (_read(folder) for folder in folders)
    return {album.name: album for album in albums if album.pictures}


def _read(folder: Path) -> Album:
    steps: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):  # csv before png: a picture goes before the numbers behind it
        if (match := re.fullmatch(r"step-(\d{1,12})\.(png|csv)", path.name)) and path.is_file():
            steps[int(match[1])] = path
    pictures = [_picture(step, steps[step]) for step in _spread(sorted(steps))]
    return Album(folder.name, [picture for picture in pictures if picture], len(steps))


def _spread(steps: list[int]) -> list[int]:
    """At most `MOST` of them, evenly, the first and the last among them."""
    if len(steps) <= MOST:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST - 1))] for i in range(MOST)]


def _picture(step: int, path: Path) -> Picture | None:
    """None if it is not whole."""
    if path.suffix == ".csv":
        rows = read_rows(path)
        shown = [[_short(cell) for cell in row.values()] for row in rows[:ROWS]]
        return Picture(step, "", list(rows[0]), shown, len(rows) - len(shown)) if rows else None
    content = path.read_bytes()
    if not (content.startswith(PNG[0]) and content.endswith(PNG[1])):
        return None
    return Picture(step, "data:image/png;base64," + base64.b64encode(content).decode())


def _short(cell: str) -> str:
    """A number with many digits in four of them; anything else as it is."""
    return f"{float(cell):.4g}" if re.fullmatch(r"-?\d+\.\d{5,40}", cell) else cell
