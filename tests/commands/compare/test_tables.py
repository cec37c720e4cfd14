"""The table in its formats."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console

from leo_lightning.commands.compare.evaluation import Result
from leo_lightning.commands.compare.tables import (
    COLUMNS,
    Entry,
    Row,
    Trial,
    duration,
    latex,
    leaders,
    markdown,
    rows,
    terminal,
    without_folders,
    write_csv,
)
from leo_lightning.common.intervals import crossed_half_width
from tests.tiny_run import rows as read_rows

HEADER = "5-way 1-shot"


def result(*accuracy: float) -> Result:
    reliability = torch.zeros(15, 3, dtype=torch.float64)
    reliability[7] = torch.tensor([10.0, 5.0, 6.0])
    values = torch.tensor(accuracy, dtype=torch.float64)
    return Result(values, reliability, adaptation_ms=0.5, parameters=1234, best_step=20, machine="CPU")


def entry(label: str, *results: Result, transductive: bool = False) -> Entry:
    """A method with seeds 0, 1, …; untrained if there is one result."""
    seeds = range(len(results)) if len(results) > 1 else [None]
    trials = [Trial(seed, result) for seed, result in zip(seeds, results, strict=True)]
    return Entry(label, trials, transductive=transductive)


@pytest.fixture(scope="module")
def table() -> list[Row]:
    entries = [
        entry("LEO_1 & 50%", result(0.5, 0.6, 0.7)),
        entry("a|b", result(0.1, 0.3, 0.2)),
        Entry("broken", failures=["broken: failed: /home/me/data/x.safetensors: is cut short"]),
    ]
    return rows(entries, "LEO_1 & 50%")


def test_differences_are_to_the_reference(table: list[Row]):
    """Catches a difference of the other sign, and a reference that is compared with itself."""
    assert table[0]["difference"] is None
    assert table[1]["difference"] == pytest.approx(-0.4)
    assert [row["leads"] for row in table] == [1, 0, 0]
    assert table[1]["calibration_error"] == pytest.approx(0.1)


def test_table_without_its_reference():
    """Catches a crash where the reference has no result, as after `--only`."""
    assert rows([entry("b", result(0.1, 0.2))], "a")[0]["difference"] is None


def test_a_difference_is_paired():
    """Catches a difference of means with independent intervals: 0.01 between methods, 0.1 between tasks."""
    generator = torch.Generator().manual_seed(2)
    tasks = 0.6 + 0.1 * torch.randn(100, dtype=torch.float64, generator=generator)
    other = tasks + 0.01 + 0.001 * torch.randn(100, dtype=torch.float64, generator=generator)
    row = rows([entry("a", result(*tasks.tolist())), entry("b", result(*other.tolist()))], "a")[1]
    low, high = scipy.stats.norm.interval(0.95, (other - tasks).mean(), scipy.stats.sem(other - tasks))
    assert row["difference"] == pytest.approx((low + high) / 2, rel=1e-4)
    assert row["difference_ci95"] == pytest.approx((high - low) / 2, rel=1e-4)
    near = other - 1e-4 * tasks.sub(0.6).sign()
    assert leaders({"a": {None: tasks}, "b": {None: other}}) == {"b"}
    assert leaders({"a": {None: tasks}, "b": {0: other}, "c": {0: near}}) == {"b", "c"}
    assert leaders({}) == set()


def test_csv_reads_back(table: list[Row], tmp_path: Path):
    """Catches columns out of step with their names, and rounded numbers."""
    write_csv(tmp_path / "table.csv", COLUMNS, table)
    lines = read_rows(tmp_path / "table.csv")
    assert [line["method"] for line in lines] == ["LEO_1 & 50%", "a|b", "broken"]
    assert float(lines[1]["difference"]) == pytest.approx(-0.4)
    assert float(lines[1]["accuracy"]) == table[1]["accuracy"]
    assert (lines[0]["parameters"], lines[0]["best_step"], lines[0]["leads"]) == ("1234", "", "1")
    assert lines[0]["steps"] == lines[0]["training_seconds"] == lines[2]["accuracy"] == ""
    assert lines[2]["note"] == "broken: failed: x.safetensors: is cut short"


def test_latex_is_escaped(table: list[Row]):
    r"""Catches a label that LaTeX reads as commands, and rows that have not the same number of cells."""
    text = latex(table, HEADER, "LEO_1 & 50%")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{(l?r*)\}", text)
    assert columns is not None
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns[1])}
    assert r"\textbf{LEO\_1 \& 50\%} & \textbf{60.00}" in text
    assert not re.search(r"(?<!\\)[%_#]", body)
    assert not re.search(r"[^\x00-\x7f]", body)


def test_markdown_is_a_table(table: list[Row]):
    """Catches a bar in a label that makes a column, and a blank line within the table."""
    lines = [line for line in markdown(table, HEADER, "LEO_1 & 50%").splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert lines[2].startswith("| **LEO_1 & 50%** | **60.00** |")
    assert "−40.00 ±" in lines[3]


HOSTILE = "[*a\n\\input{secret} \x1b[31m`<b>`|b"


def test_a_label_stays_in_its_cell(tmp_path: Path):
    r"""Catches \input in LaTeX, HTML and new columns in Markdown, and a label's ends of lines and escapes."""
    failed = Entry("=1+1", failures=["failed:\n\\input{secret}"])
    table = rows([entry(HOSTILE, result(0.5, 0.7)), failed], HOSTILE)
    tex, md = latex(table, HEADER, HOSTILE), markdown(table, HEADER, HOSTILE)
    assert r"\textbf{{[}{*}a \textbackslash{}input\{secret\} ?{[}31m`<b>`|b}" in tex
    assert all(line.startswith("%") for line in tex.splitlines() if r"\input" in line)
    assert "| **\\[*a \\\\input{secret} ?\\[31m\\`\\<b>\\`\\|b** |" in md
    assert len([line for line in md.splitlines() if line.startswith("|")]) == 4
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal(table, HOSTILE, console))
    assert "\x1b[31m" not in console.export_text()
    write_csv(tmp_path / "table.csv", COLUMNS, table)
    names = [line["method"] for line in read_rows(tmp_path / "table.csv")]
    assert names == [HOSTILE.replace("\n", "?").replace("\x1b", "?"), "'=1+1"]


@pytest.mark.parametrize(("width", "columns"), [(80, 4), (180, 10)])
def test_terminal_is_wide_enough(table: list[Row], width: int, columns: int):
    """Catches numbers that are cut where the terminal is narrow, and columns left out without a word."""
    console = Console(width=width, record=True, file=io.StringIO())
    shown = terminal(table, "LEO_1 & 50%", console)
    console.print(shown)
    assert len(shown.columns) == columns
    said = console.export_text()
    assert "−40.00 ± " in said
    assert ("table.md" in said) == (columns == 4)


def test_folders_are_left_out():
    """Catches paths of one machine in a table for others, and shares of text taken for paths."""
    assert without_folders("/a/b/c.ckpt: damaged; 1/2, runs/x/y") == "c.ckpt: damaged; 1/2, runs/x/y"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.4, "3 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min"), (90000.0, "25 h 00 min")],
)
def test_duration(seconds: float, text: str):
    """Catches 60 seconds, and days that are lost."""
    assert duration(seconds) == text


def seeded(label: str, shift: float, seed: int) -> Entry:
    """A method with three seeds on 50 tasks; seeds differ by 0.01, tasks by 0.1."""
    generator = np.random.default_rng(seed)
    tasks = 0.6 + 0.1 * np.random.default_rng(0).standard_normal(50)
    seeds = shift + 0.01 * generator.standard_normal(3)
    values = tasks + seeds[:, None] + 0.02 * generator.standard_normal((3, 50))
    return entry(label, *(result(*row) for row in values.tolist()))


def test_means_over_seeds():
    """Catches an interval that is only over tasks, or a spread of tasks that is taken for one of seeds."""
    one, other = seeded("a", 0.0, 1), seeded("b", 0.05, 2)
    table = rows([one, other], "a")
    by_seed = [trial.result.accuracy.mean().item() for trial in other.trials]
    assert table[1]["accuracy"] == pytest.approx(np.mean(by_seed))
    assert table[1]["seed_std"] == pytest.approx(np.std(by_seed, ddof=1))
    pairs = zip(other.trials, one.trials, strict=True)
    differences = np.stack([(b.result.accuracy - a.result.accuracy).numpy() for b, a in pairs])
    assert table[1]["difference"] == pytest.approx(differences.mean())
    assert table[1]["difference_ci95"] == pytest.approx(crossed_half_width(differences))
    assert "std, seeds" in markdown(table, HEADER, "a")


def test_a_method_without_training_is_compared_with_every_seed():
    """Catches a difference to one seed only."""
    three, none = seeded("a", 0.0, 1), entry("b", result(*[0.5] * 50))
    difference = rows([three, none], "a")[1]["difference"]
    assert difference == pytest.approx(0.5 - rows([three, none], "a")[0]["accuracy"])


def test_seeds_that_both_have_are_compared():
    """Catches seed 1 of a method compared with seed 0 of another."""
    first, second = seeded("a", 0.0, 1), seeded("b", 0.1, 2)
    del first.trials[0]
    del second.trials[2]
    row = rows([first, second], "a")[1]
    [alone] = [trial for trial in second.trials if trial.seed == 1]
    assert row["difference"] == pytest.approx(
        (alone.result.accuracy - first.trials[0].result.accuracy).mean().item()
    )


def test_transductive_methods_are_ranked_by_themselves():
    """Catches a transductive method that is called the best of all, or one that stands among the others."""
    entries = [
        entry("t", result(0.9, 0.8), transductive=True),
        entry("a", result(0.5, 0.6)),
        entry("u", result(0.5, 0.4), transductive=True),
    ]
    table = rows(entries, "a")
    assert [(row["method"], row["leads"]) for row in table] == [("a", 1), ("t", 1), ("u", 0)]
    lines = markdown(table, HEADER, "a").splitlines()
    assert [line for line in lines if line.startswith("| *transductive")] == [lines[5]]
    assert r"\multicolumn" in latex(table, HEADER, "a")
