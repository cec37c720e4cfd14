"""CSV files of a run, which may still be writing them."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leo_lightning.common.errors import InputError, one_line


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table by column name; empty if the file is missing.

    A last line without its end is left out: the run is writing it, or was killed while writing.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return []
    with damaged(path):
        text = path.read_bytes().decode()
        reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True)
        names = next(reader, [])
        rows = []
        for cells in reader:
            if len(cells) != len(names):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells, the header {len(names)}")
            rows.append(dict(zip(names, cells, strict=True)))
        return rows


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Name the file in which a cell is missing or is not a number.

    Raises:
        InputError: the reason.
    """
    try:
        yield
    except (csv.Error, KeyError, ValueError, RecursionError) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path}: is damaged ({reason}); restore the file, or move it away") from None
