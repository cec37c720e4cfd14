"""The table: the same rows for a terminal, Markdown, LaTeX and a spreadsheet."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
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
from leo_lightning.common.intervals import crossed_half_width, half_width
from leo_lightning.common.spreadsheet import csv_cell
from leo_lightning.training.task_scores import calibration_error


@dataclass(frozen=True)
class Trial:
    """A method with one seed: its evaluation and training."""

    seed: int | None
    """None for a method without training."""
    result: Result
    run: Run | None = None
    unequal: Result | None = None
    """Evaluation with unequal numbers of queries."""


@dataclass
class Entry:
    """A method with its trials."""

    label: str
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Why trials failed."""
    transductive: bool = False


Row = dict[str, Any]
"""A line of the table: the values of `COLUMNS`, None where nothing is known."""
COLUMNS = (
    "method", "transductive", "seeds", "accuracy", "ci95", "seed_std", "difference", "difference_ci95",
    "unequal", "unequal_ci95", "calibration_error", "parameters", "steps", "best_step", "training_seconds",
    "adaptation_ms", "leads", "note",
)  # fmt: skip
"""`ci95` is over tasks, for these seeds; `difference` is to the reference, by task and seed. `leads`: not
significantly worse than the best method that sees the same, inductive or transductive."""
TRANSDUCTIVE = "transductive: all queries of a task are seen together"


def rows(entries: Sequence[Entry], reference: str) -> list[Row]:
    """Work out the table: inductive methods, then transductive ones, which are ranked by themselves."""
    accuracies = {entry.label: _accuracies(entry) for entry in entries if entry.trials}
    kinds = [[entry for entry in entries if entry.transductive is kind] for kind in (False, True)]
    table = []
    for kind in kinds:
        ahead = leaders({entry.label: accuracies[entry.label] for entry in kind if entry.trials})
        for entry in kind:
            row = Row.fromkeys(COLUMNS) | {
                "method": entry.label,
                "transductive": int(entry.transductive),
                "note": without_folders("; ".join(entry.failures)),
                "leads": int(entry.label in ahead),
            }
            if entry.trials:
                row |= _measured(entry)
                if entry.label != reference and reference in accuracies:
                    row |= _compared(accuracies[entry.label], accuracies[reference])
            table.append(row)
    return table


def _measured(entry: Entry) -> Row:
    """Means over the seeds, and the steps of each."""
    results = [trial.result for trial in entry.trials]
    unequal = [trial.unequal for trial in entry.trials if trial.unequal is not None]
    runs = [trial.run for trial in entry.trials if trial.run is not None]
    by_seed = torch.stack([result.accuracy for result in results])
    seconds = [run.seconds for run in runs if run.seconds is not None]
    row = {
        "seeds": len(runs) or None,
        "accuracy": by_seed.mean().item(),
        "ci95": half_width(by_seed.mean(0)),
        "seed_std": by_seed.mean(1).std().item() if len(by_seed) > 1 else None,
        "calibration_error": mean(calibration_error(result.reliability) for result in results),
        "parameters": results[0].parameters,
        "adaptation_ms": mean(result.adaptation_ms for result in results),
    }
    if len(unequal) == len(results):
        accuracy = torch.stack([result.accuracy for result in unequal]).mean(0)
        row |= {"unequal": accuracy.mean().item(), "unequal_ci95": half_width(accuracy)}
    if runs:
        row |= {
            "steps": [run.steps for run in runs],
            "best_step": [result.best_step for result in results],
            "training_seconds": mean(seconds) if seconds else None,
        }
    return row


Accuracies = dict[int | None, Float64[Tensor, " tasks"]]
"""By seed; None for a method without training."""


def _accuracies(entry: Entry) -> Accuracies:
    return {trial.seed: trial.result.accuracy for trial in entry.trials}


def _differences(ours: Accuracies, theirs: Accuracies) -> Float64[np.ndarray, "seeds tasks"] | None:
    """Differences by seed and task; None if there is no common seed."""
    if None in ours:
        pairs = [(ours[None], accuracy) for accuracy in theirs.values()]
    elif None in theirs:
        pairs = [(accuracy, theirs[None]) for accuracy in ours.values()]
    else:
        pairs = [(accuracy, theirs[seed]) for seed, accuracy in ours.items() if seed in theirs]
    return np.stack([(mine - other).numpy() for mine, other in pairs]) if pairs else None


def _compared(ours: Accuracies, theirs: Accuracies) -> Row:
    differences = _differences(ours, theirs)
    if differences is None:
        return {}
    return {"difference": float(differences.mean()), "difference_ci95": crossed_half_width(differences)}


def leaders(accuracies: Mapping[str, Accuracies]) -> set[str]:
    """Return the best method, and those whose difference to it may well be zero."""
    if not accuracies:
        return set()
    best = max(accuracies, key=lambda label: torch.stack([*accuracies[label].values()]).mean().item())
    ahead = {best}
    for label, ours in accuracies.items():
        differences = _differences(ours, accuracies[best])
        if differences is not None and abs(differences.mean()) <= crossed_half_width(differences):
            ahead.add(label)
    return ahead


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
        for row in table:
            texts = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
            writer.writerow({name: csv_cell(value) for name, value in texts.items()})


class Column(NamedTuple):
    """A column of the table for people."""

    title: str
    write: Callable[[Row], str]
    """The text of a row with an accuracy."""


def _columns(table: Sequence[Row], reference: str) -> list[Column]:
    """The columns that say something for one row at least."""

    def number(name: str, write: Callable[[Any], str]) -> Callable[[Row], str]:
        return lambda row: "" if row[name] is None else write(row[name])

    def percent(name: str) -> Callable[[Row], str]:
        return number(name, lambda value: f"{100 * value:.2f}")

    def with_interval(name: str, sign: str) -> Callable[[Row], str]:
        def write(row: Row) -> str:
            if row[name] is None:
                return ""
            half = row[f"{name}_ci95"]
            text = f"{100 * row[name]:{sign}.2f}".replace("-", "−")
            return text if math.isnan(half) else f"{text} ± {100 * half:.2f}"

        return write

    columns = [
        Column("accuracy, %", percent("accuracy")),
        Column("± 95 %, tasks", percent("ci95")),
        Column("seeds", number("seeds", str)),
        Column("std, seeds", percent("seed_std")),
        Column(f"difference to {_on_one_line(reference)}", with_interval("difference", "+")),
        Column("unequal queries, %", with_interval("unequal", "")),
        Column("ECE, %", number("calibration_error", lambda value: f"{100 * value:.1f}")),
        Column("parameters", number("parameters", lambda value: f"{value:,}")),
        Column("steps", number("steps", _span)),
        Column("tested step", number("best_step", _span)),
        Column("training", number("training_seconds", duration)),
        Column("adaptation, ms/task", number("adaptation_ms", lambda value: f"{value:.3f}")),
    ]
    measured = [row for row in table if row["accuracy"] is not None]
    if not any(row["seed_std"] for row in measured):
        columns = [column for column in columns if "seeds" not in column.title]
    return [each for each in columns if "unequal" not in each.title or any(map(each.write, measured))]


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _cells(row: Row, columns: Sequence[Column]) -> list[str]:
    name = _on_one_line(row["method"])
    if row["accuracy"] is None:
        return [name, "failed" if row["note"] else "", *[""] * (len(columns) - 1)]
    return [name, *(column.write(row) for column in columns)]


def _blocks(table: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Inductive and transductive rows, with the title of the latter."""
    for title, kind in (("", 0), (TRANSDUCTIVE, 1)):
        if block := [row for row in table if row["transductive"] == kind]:
            yield title, block


def terminal(table: Sequence[Row], reference: str, console: Console) -> Table:
    """Draw the table for a terminal; a narrow one gets only the columns of the comparison."""
    columns = _columns(table, reference)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("method", *(column.title for column in columns)):
        text = title.replace(", ", "\n").replace(" to ", "\nto ")
        first = title == "method"
        drawn.add_column(Text(text), justify="left" if first else "right", no_wrap=not first)
    for title, block in _blocks(table):
        if title:
            drawn.add_section()
            drawn.add_row(Text(title), style="italic")
        for row in block:
            drawn.add_row(*map(Text, _cells(row, columns)), style="bold" if row["leads"] else None)
    needed = Measurement.get(console, console.options.update_width(1000), drawn).maximum
    if needed > console.width:
        kept = next(number for number, column in enumerate(columns) if "difference" in column.title)
        del drawn.columns[kept + 2 :]
        drawn.caption = f"the other columns need a terminal of {needed}; they are in table.md"
    return drawn


def markdown(table: Sequence[Row], header: str, reference: str) -> str:
    """Write the table in GitHub's Markdown."""
    columns = _columns(table, reference)
    lines = [["method", *(_in_markdown(column.title) for column in columns)]]
    for title, block in _blocks(table):
        if title:
            lines.append([f"*{title}*", *[""] * len(columns)])
        for row in block:
            cells = list(map(_in_markdown, _cells(row, columns)))
            if row["leads"]:
                cells[:2] = [f"**{text}**" for text in cells[:2]]
            lines.append(cells)
    texts = [f"| {' | '.join(line)} |" for line in lines]
    texts.insert(1, f"|---{'|---:' * len(columns)}|")
    notes = [text for note in footnotes(table) for text in ("", _in_markdown(note))]
    return "\n".join([_in_markdown(header), "", *texts, *notes]) + "\n"


def latex(table: Sequence[Row], header: str, reference: str) -> str:
    r"""Write the table in LaTeX, for `\usepackage{booktabs}`."""
    columns = _columns(table, reference)
    titles = ["method", *(_in_latex(column.title) for column in columns)]
    lines = [
        f"% {header}",
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        rf"{' & '.join(titles)} \\",
    ]
    for title, block in _blocks(table):
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{len(titles)}}}{{l}}{{\emph{{{title}}}}} \\")
        for row in block:
            cells = list(map(_in_latex, _cells(row, columns)))
            if row["leads"]:
                cells[:2] = [rf"\textbf{{{text}}}" for text in cells[:2]]
            lines.append(rf"{' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in footnotes(table))]
    return "\n".join(lines) + "\n"


def footnotes(table: Sequence[Row]) -> list[str]:
    """Say why rows are empty."""
    return [_on_one_line(row["note"]) for row in table if row["note"]]


def duration(seconds: float) -> str:
    """Write hours, minutes and seconds, as few of them as needed."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


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
