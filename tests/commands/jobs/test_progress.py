"""The table of all runs, its lines, and how far a run has come."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from leo_lightning.commands.jobs import progress as module
from leo_lightning.commands.jobs.metrics import Far, RunMetrics
from leo_lightning.commands.jobs.progress import Progress, Row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines(folder: Path, terminal: bool = False, height: int = 40) -> tuple[Progress, io.StringIO]:
    """A table and what it prints."""
    said = io.StringIO()
    console = Console(file=said, width=120, height=height, force_terminal=terminal, color_system=None)
    return Progress(folder / "progress.log", console, "method", "val"), said


def test_the_newest_run_counts_and_half_a_line_does_not(tmp_path: Path):
    """Catches scores of a run that was begun anew, a step too few, and a line that is just being written."""
    metrics = RunMetrics(tmp_path, "val/accuracy")
    assert metrics.far() == Far()
    for name, line in (("old", "99,0,0.9"), ("new", "9,0,0.5")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(f"step,epoch,val/accuracy\n{line}\n")
    assert metrics.far().step in (10, 100)  # as old as each other, on a coarse clock
    with (tmp_path / "new" / "metrics.csv").open("a") as file:
        file.write("14,1,\n19,1,0.75\n24,1,0.")
    assert metrics.far() == Far(20, ((0.5, 10), (0.75, 20)))


def test_lines_of_a_run(tmp_path: Path, clock: list[float]):
    """By hand. Catches a time left that counts the start-up, a validation that is told twice or never.

    Also a file without the lines, and a run that is silent for hours.
    """
    shown, said = lines(tmp_path)
    row = shown.rows["a"] = Row("A", 3, 100)
    shown.began(row, Far())
    clock[0] += 50  # imports
    shown.went_on(row, "running", Far(10, ()))
    clock[0] += 20
    shown.went_on(row, "running", Far(20, ((0.5, 20),)))
    shown.went_on(row, "running", Far(20, ((0.5, 20),)))
    clock[0] += 59
    shown.went_on(row, "running", Far(30, ((0.5, 20),)))
    clock[0] += 1
    shown.went_on(row, "running", Far(50, ((0.5, 20),)))
    shown.went_on(row, "preempted", Far(50, ((0.5, 20),)))
    clock[0] += 1000
    shown.went_on(row, "running", Far(50, ((0.5, 20),)))
    told = said.getvalue().splitlines()
    assert told == [
        "A, seed 3: started",
        "A, seed 3: step 20/100  val 0.5000  best 0.5000  0:02:40 left",  # 20 s for 10 steps
        "A, seed 3: step 50/100  val 0.5000  best 0.5000  0:01:40 left",  # 80 s for 40 steps
        "A, seed 3: preempted at step 50",
        "A, seed 3: goes on at step 50",
        "A, seed 3: step 50/100  val 0.5000  best 0.5000",
    ]
    kept = (tmp_path / "progress.log").read_text().splitlines()
    assert [line.partition("  ")[2] for line in kept] == told


def test_the_best_is_the_least_error():
    """Catches the largest squared error in the column of the best."""
    far = Far(20, ((0.5, 10), (0.25, 20), (0.75, 30)))
    assert Row("A", None, 100, min, far=far).best == 0.25
    assert Row("A", None, 100, far=far).best == 0.75
    assert Row("A", None, 100).best is None


def test_the_table_of_a_terminal(tmp_path: Path, clock: list[float]):
    """Catches a column that is missing, and a low terminal without the runs that are at work."""
    shown, said = lines(tmp_path, terminal=True, height=9)
    for number in range(6):
        row = shown.rows[str(number)] = Row(f"M{number}", number, 1000)
        shown.over(row, "done", Far(1000, ((0.5, 1000),)))
    shown.rows["4"].state = "waiting"
    shown.rows["5"].state, shown.rows["5"].note = "evaluating", "40 of 100 tasks"
    shown.console.print(shown.table())
    drawn = said.getvalue()
    assert [
        word for word in ("method", "seed", "step", "left", "best val", "state") if word not in drawn
    ] == []
    assert "evaluating: 40 of 100 tasks" in drawn
    assert "M4" in drawn
    assert drawn.count("done") == 2  # one row, and one word in the caption
    assert "and 3 more: 4 done, 1 waiting, 1 evaluating" in drawn
