"""The table: the same rows for a terminal, Markdown, LaTeX and a spreadsheet."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float64
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from torch import Tensor

from leo_lightning.commands.compare.evaluation import Result
from leo_lightning.commands.compare.training import Run
from leo_lightning.common.errors import without_controls
from leo_lightning.common.files import whole_file
from leo_lightning.common.intervals import half_width
from leo_lightning.common.spreadsheet import csv_cell
from leo_lightning.training.task_scores import calibration_error


@dataclass(frozen=True)
class Entry:
    """A method with its evaluation and training; the note says why there is no result."""

    label: str
    result: Result | None = None
    run: Run | None = None
    note: str = ""
    failed: bool = False


Row = dict[str, Any]
"""A line of the table: the values of `COLUMNS`, None where nothing is known."""
COLUMNS = (
    "method", "accuracy", "ci95", "difference", "difference_ci95", "calibration_error", "parameters", "steps",
    "best_step", "training_seconds", "adaptation_ms", "leads", "note",
)  # fmt: skip
"""Differences are to the reference, task by task. `leads`: not significantly worse than the best method."""


def rows(entries: Sequence[Entry], reference: str) -> list[Row]:
    """Work out the table."""
    accuracies = {entry.label: entry.result.accuracy for entry in entries if entry.result}
    ahead = leaders(accuracies)
    table = []
    for entry in entries:
        row = Row.fromkeys(COLUMNS) | {"method": entry.label, "note": without_folders(entry.note), "leads": 0}
        if result := entry.result:
            row |= {
                "accuracy": result.accuracy.mean().item(),
                "ci95": half_width(result.accuracy),
                "calibration_error": calibration_error(result.reliability),
                "parameters": result.parameters,
                "best_step": result.best_step,
                "adaptation_ms": result.adaptation_ms,
                "leads": int(entry.label in ahead),
            }
            if entry.run:
                row |= {"steps": entry.run.steps, "training_seconds": entry.run.seconds}
            if entry.label != reference and reference in accuracies:
                values = result.accuracy - accuracies[reference]
                row |= {"difference": values.mean().item(), "difference_ci95": half_width(values)}
        table.append(row)
    return table


def leaders(accuracies: Mapping[str, Float64[Tensor, " tasks"]]) -> set[str]:
    """Return the best method, and those whose difference to it, task by task, may well be zero."""
    if not accuracies:
        return set()
    best = max(accuracies.values(), key=lambda accuracy: accuracy.mean().item())
    differences = {label: accuracy - best for label, accuracy in accuracies.items()}
    return {label for label, values in differences.items() if abs(values.mean().item()) <= half_width(values)}


def without_folders(text: str) -> str:
    """Leave out the absolute paths in a message: they mean nothing on other machines."""
    return re.sub(r"(?<![\w./])/(?:[^/\s]+/)+", "", text)


def write(table: Sequence[Row], header: str, reference: str, out: Path) -> list[Path]:
    """Write the table in all formats; return the files."""
    texts = {"table.md": markdown(table, header, reference), "table.tex": latex(table, header, reference)}
    for name, content in texts.items():
        with whole_file(out / name) as part:
            part.write_text(content, encoding="utf-8")
    write_csv(out / "table.csv", COLUMNS, table)
    return [*(out / name for name in texts), out / "table.csv"]


def write_csv(path: Path, columns: Sequence[str], table: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with all digits: accuracies between 0 and 1, times in seconds."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in table)


def terminal(table: Sequence[Row], reference: str, console: Console) -> Table:
    """Draw the table for a terminal; a narrow one gets only the columns of the comparison."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(_titles(reference)):
        title = title.replace(", ", "\n").replace(" to ", "\nto ")
        drawn.add_column(Text(title), justify="right" if number else "left", no_wrap=bool(number))
    for row in table:
        drawn.add_row(*map(Text, _cells(row)), style="bold" if row["leads"] else None)
    needed = Measurement.get(console, console.options.update_width(1000), drawn).maximum
    if needed > console.width:
        del drawn.columns[5:]
        drawn.caption = f"the other columns need a terminal of {needed}; they are in table.md"
    return drawn


def markdown(table: Sequence[Row], header: str, reference: str) -> str:
    """Write the table in GitHub's Markdown."""
    lines = [list(map(_in_markdown, _titles(reference)))]
    for row in table:
        cells = list(map(_in_markdown, _cells(row)))
        if row["leads"]:
            cells[:2] = [f"**{text}**" for text in cells[:2]]
        lines.append(cells)
    texts = [f"| {' | '.join(line)} |" for line in lines]
    texts.insert(1, f"|---{'|---:' * (len(lines[0]) - 1)}|")
    notes = [text for note in footnotes(table) for text in ("", _in_markdown(note))]
    return "\n".join([_in_markdown(header), "", *texts, *notes]) + "\n"


def latex(table: Sequence[Row], header: str, reference: str) -> str:
    r"""Write the table in LaTeX, for `\usepackage{booktabs}`."""
    titles = list(map(_in_latex, _titles(reference)))
    lines = [
        f"% {header}",
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        r"\toprule",
        rf"{' & '.join(titles)} \\",
        r"\midrule",
    ]
    for row in table:
        cells = list(map(_in_latex, _cells(row)))
        if row["leads"]:
            cells[:2] = [rf"\textbf{{{text}}}" for text in cells[:2]]
        lines.append(rf"{' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in footnotes(table))]
    return "\n".join(lines) + "\n"


def footnotes(table: Sequence[Row]) -> list[str]:
    """Say why rows are empty."""
    return [_on_one_line(f"{row['method']}: {row['note']}") for row in table if row["note"]]


def duration(seconds: float) -> str:
    """Write hours, minutes and seconds, as few of them as needed."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _titles(reference: str) -> list[str]:
    return [
        "method", "accuracy, %", "± 95 %", f"difference to {_on_one_line(reference)}", "ECE, %",
        "parameters", "steps", "tested step", "training", "adaptation, ms/task",
    ]  # fmt: skip


def _cells(row: Row) -> list[str]:
    if row["accuracy"] is None:
        return [_on_one_line(row["method"]), "failed" if row["note"].startswith("failed") else "", *[""] * 8]

    def cell(name: str, write: Callable[[Any], str]) -> str:
        return "" if row[name] is None else write(row[name])

    half = cell("difference_ci95", lambda value: f" ± {100 * value:.2f}")
    return [
        _on_one_line(row["method"]),
        f"{100 * row['accuracy']:.2f}",
        f"{100 * row['ci95']:.2f}",
        cell("difference", lambda value: f"{100 * value:+.2f}{half}".replace("-", "−")),
        cell("calibration_error", lambda value: f"{100 * value:.1f}"),
        *(cell(name, lambda value: f"{value:,}") for name in ("parameters", "steps", "best_step")),
        cell("training_seconds", duration),
        cell("adaptation_ms", lambda value: f"{value:.3f}"),
    ]


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "−": r"$-$", "[": "{[}", "*": "{*}",  # after the \\ of a line, these two would be its arguments
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _in_markdown(text: str) -> str:
    return re.sub(r"[\\|<`\[]", r"\\\g<0>", text)


def _on_one_line(text: str) -> str:
    return without_controls(" ".join(text.split()))
