"""Tables of features: parquet, CSV and TSV, through pandas."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.common.errors import InputError, one_line, printable, require
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.bank import listed
from leo_lightning.data.importers.names import EMBEDDINGS, LABELS, NAMES
from leo_lightning.data.importers.sources import check_unpacked

_LABELS = (*LABELS, "class", "class_name", "category")
_NAMES = (*NAMES, "image_name", "image", "filename", "file", "path", "name")
_INDEX = ("", "Unnamed: 0", "__index_level_0__", "index", "id")


def read_table_file(path: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Read a column of labels, a column of image names, and all others as embeddings.

    Args:
        path: the file; its ending tells the format.
        report: called with a remark if a column is left out.

    Raises:
        InputError: the file is damaged, or a column is neither numbers nor one of the others.
    """
    require("pandas", f"{path}: reading a table")
    if path.suffix == ".parquet":
        require("pyarrow", f"{path}: reading parquet")
    import pandas

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            about = pyarrow.parquet.read_metadata(path)
            check_unpacked(4 * about.num_rows * about.num_columns, path.stat().st_size, str(path))
            table = pandas.read_parquet(path, engine="pyarrow")
            table = table.reset_index(drop=table.index.name not in (*_LABELS, *_NAMES))
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            table = pandas.read_csv(
                path, sep=separator, header=None, keep_default_na=False, dtype=str, encoding="utf-8-sig"
            )
            table.columns = table.iloc[0]
            table = table[1:]
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        refuse_page(path, str(path))
        raise InputError(f"{path}: cannot be read as a table ({one_line(error)})") from None
    columns = [str(column).strip() for column in table.columns]
    table.columns = columns
    if len({*columns}) != len(columns):
        raise InputError(f"{path}: two columns have the same name; give each its own")
    _refuse_numbers(columns, path)
    content: dict[str, Any] = {}
    for key, names in (("labels", _LABELS), ("image_names", _NAMES)):
        present = [column for column in table.columns if column.lower() in names]
        if len(present) > 1:
            raise InputError(
                f"{path}: has both a column '{present[0]}' and '{present[1]}'; leave one of them"
            )
        if present:
            content[key] = table.pop(present[0]).tolist()
    for column in [column for column in table.columns if column in _INDEX]:
        report(f"{path}: leaving out the column '{column}', which is not taken for an embedding")
        del table[column]
    if not len(table.columns):
        raise InputError(
            f"{path}: has no column of embeddings; a list of images goes to `features extract --images`"
        )
    lists = [column for column in table.columns if column in EMBEDDINGS]
    if len(table.columns) == 1 and lists and path.suffix == ".parquet":
        return content | {"embeddings": table[lists[0]].tolist()}
    numbers = {column: _numbers(table[column], f"{path}: column '{printable(column)}'") for column in table}
    _report_others([*numbers], path, report)
    return content | {"embeddings": np.stack([*numbers.values()], axis=1)}


def _numbers(column: Any, where: str) -> np.ndarray:
    try:
        if column.dtype == bool:
            raise ValueError
        return column.to_numpy(np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise InputError(
            f"{where} holds something other than numbers; remove it, or call it 'label' or 'image_name'"
        ) from None


def _report_others(columns: list[str], path: Path, report: Callable[[str], None]) -> None:
    """Remark on a column beside numbered ones (f0, f1, …), which may be something else, such as an age."""
    stems = Counter(column.rstrip("0123456789") for column in columns)
    stem, count = stems.most_common(1)[0]
    others = [column for column in columns if column.rstrip("0123456789") != stem]
    if count > 1 and others:
        report(
            f"{path}: taking the columns {printable(listed(others))} for numbers of the embedding, as "
            f"'{printable(stem)}…' ({count} columns); remove what is something else"
        )


def _refuse_numbers(columns: list[str], path: Path) -> None:
    """Refuse a first line of numbers, which would be lost as names; pandas numbers columns from 0."""
    numeric = [column for column in columns if column.replace(".", "").lstrip("-").isdecimal()]
    if numeric and numeric != [str(number) for number in range(len(numeric))]:
        raise InputError(f"{path}: begins with numbers; add a first line with the names of the columns")
