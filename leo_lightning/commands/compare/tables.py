"""The table: the same rows for a terminal, Markdown, LaTeX and a spreadsheet."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from leo_lightning.commands.compare.evaluation import Result
from leo_lightning.commands.compare.statistics import Interval, interval, leaders
from leo_lightning.commands.compare.training import Run
from leo_lightning.common.files import whole_file
from leo_lightning.training.task_scores import calibration_error

CSV_COLUMNS = (
    "method", "accuracy", "ci95", "difference", "difference_ci95", "calibration_error", "parameters", "steps",
    "best_step", "training_seconds", "adaptation_ms", "leads", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What is known of a method."""

    label: str
    result: Result | None = None
    run: Run | None = None
    note: str = ""
    """Why there is no result."""


@dataclass(frozen=True)
class Row:
    """A line of the table; None where nothing is known."""

    method: str
    accuracy: Interval | None = None
    difference: Interval | None = None
    """To the reference, task by task."""
    calibration_error: float | None = None
    parameters: int | None = None
    steps: int | None = None
    best_step: int | None = None
    training_seconds: float | None = None
    adaptation_ms: float | None = None
    leads: bool = False
    """The best, or not significantly different from it."""
    note: str = ""


def rows(entries: Sequence[Entry], reference: str) -> list[Row]:
    """Work out the table."""
    accuracies = {entry.label: entry.result.accuracy for entry in entries if entry.result is not None}
    ahead = leaders(accuracies)
    found = []
    for entry in entries:
        result, run = entry.result, entry.run
        if result is None:
            found.append(Row(entry.label, note=without_folders(entry.note)))
            continue
        compared = entry.label != reference and reference in accuracies
        found.append(
            Row(
                method=entry.label,
                accuracy=interval(result.accuracy),
                difference=interval(result.accuracy - accuracies[reference]) if compared else None,
                calibration_error=calibration_error(result.reliability),
                parameters=result.parameters,
                steps=None if run is None else run.steps,
                best_step=result.best_step,
                training_seconds=None if run is None else run.seconds,
                adaptation_ms=result.adaptation_ms,
                leads=entry.label in ahead,
            )
        )
    return found


def without_folders(text: str) -> str:
    """A message without the absolute paths in it, which are of no use elsewhere."""
    return re.sub(r"(?<![\w./])/(?:[^/\s]+/)+", "", text)


def write(rows: Sequence[Row], header: str, reference: str, out: Path) -> list[Path]:
    """Write the table in all formats; the files."""
    texts = {
        "table.md": markdown(rows, header, reference),
        "table.tex": latex(rows, header, reference),
        "table.csv": spreadsheet(rows),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        with whole_file(out / name) as part:
            part.write_text(content, newline="")
    return [out / name for name in texts]


def terminal(rows: Sequence[Row], reference: str, console: Console) -> Table:
    """The table for a terminal; one that is too narrow gets the first columns, those of the comparison."""
    whole = _terminal(rows, reference, len(_titles(reference)))
    needed = Measurement.get(console, console.options.update_width(1000), whole).maximum
    if needed <= console.width:
        return whole
    narrow = _terminal(rows, reference, 5)
    narrow.caption = f"the other columns need a terminal of {needed}; they are in table.md"
    return narrow


def _terminal(rows: Sequence[Row], reference: str, columns: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(_titles(reference)[:columns]):
        title = title.replace(", ", "\n").replace(" to ", "\nto ")
        table.add_column(Text(title), justify="right" if number else "left", no_wrap=bool(number))
    for row in rows:
        cells = [Text(cell) for cell in _cells(row)[:columns]]
        table.add_row(*cells, style="bold" if row.leads else None)
    return table


def markdown(rows: Sequence[Row], header: str, reference: str) -> str:
    """The table in GitHub's Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    titles = _titles(reference)
    lines = [header, "", line(titles), f"|---{'|---:' * (len(titles) - 1)}|"]
    for row in rows:
        cells = _cells(row)
        if row.leads:
            cells[:2] = [f"**{cell}**" for cell in cells[:2]]
        lines.append(line(cells))
    lines += [line for note in footnotes(rows) for line in ("", note)]
    return "\n".join(lines) + "\n"


def latex(rows: Sequence[Row], header: str, reference: str) -> str:
    r"""The table in LaTeX, for `\usepackage{booktabs}`."""
    titles = [_escaped(title) for title in _titles(reference)]
    lines = [
        f"% {header}",
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        r"\toprule",
        rf"{' & '.join(titles)} \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [_escaped(cell) for cell in _cells(row)]
        if row.leads:
            cells[:2] = [rf"\textbf{{{cell}}}" for cell in cells[:2]]
        lines.append(rf"{' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in footnotes(rows))]
    return "\n".join(lines) + "\n"


def spreadsheet(rows: Sequence[Row]) -> str:
    """The table as CSV: shares between 0 and 1, seconds, all digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        accuracy, difference = row.accuracy or ("", ""), row.difference or ("", "")
        writer.writerow(
            [
                row.method,
                *accuracy,
                *difference,
                row.calibration_error,
                row.parameters,
                row.steps,
                row.best_step,
                row.training_seconds,
                row.adaptation_ms,
                int(row.leads),
                row.note,
            ]
        )
    return file.getvalue()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as few of them as needed."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _titles(reference: str) -> list[str]:
    return [
        "method", "accuracy, %", "± 95 %", f"difference to {reference}", "ECE, %", "parameters", "steps",
        "tested step", "training", "adaptation, ms/task",
    ]  # fmt: skip


def _cells(row: Row) -> list[str]:
    if row.accuracy is None:
        return [row.method, "failed" if row.note.startswith("failed") else "", *[""] * 8]
    difference = (
        "" if row.difference is None else "{:+.2f} ± {:.2f}".format(*(100 * x for x in row.difference))
    )
    return [
        row.method,
        f"{100 * row.accuracy.mean:.2f}",
        f"{100 * row.accuracy.half:.2f}",
        difference.replace("-", "−"),
        _shown(row.calibration_error, lambda value: f"{100 * value:.1f}"),
        _shown(row.parameters, lambda value: f"{value:,}"),
        _shown(row.steps, lambda value: f"{value:,}"),
        _shown(row.best_step, lambda value: f"{value:,}"),
        _shown(row.training_seconds, duration),
        _shown(row.adaptation_ms, lambda value: f"{value:.3f}"),
    ]


def _shown(value: int | float | None, text: Callable[[Any], str]) -> str:
    return "" if value is None else text(value)


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Why some rows are empty."""
    return [f"{row.method}: {row.note}" for row in rows if row.note]


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "−": r"$-$", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
