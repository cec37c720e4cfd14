"""Runs on this machine: several at a time, how they are stopped, and how they end with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leo_lightning.commands.jobs import runner
from leo_lightning.commands.jobs.local_run import LocalLauncher
from leo_lightning.commands.jobs.progress import Progress
from leo_lightning.commands.jobs.runner import failure, last_line, sigterm_interrupts
from leo_lightning.common.errors import Interrupted
from tests.commands.jobs.tiny_jobs import STEPS, job, run
from tests.places import ROOT
from tests.tiny_run import folders, rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often."""
    monkeypatch.setattr(runner, "LOOK", 0.05)


@pytest.mark.slow
def test_two_at_a_time_and_one_that_fails(tmp_path: Path):
    """Catches runs that wait for each other, a failure that ends the others, and a GPU that is hidden."""
    together = []

    def look(progress: Progress) -> None:
        together.append([row.state for row in progress.rows.values()].count("running"))

    jobs = [job(tmp_path, "a"), job(tmp_path, "refused", "--trainer.max_stepz=1"), job(tmp_path, "b")]
    ended, said = run(tmp_path, LocalLauncher(), jobs, 2, look)
    reasons = {one.job.name: (one.code, one.reason) for one in ended}
    assert reasons["a"] == reasons["b"] == (0, "")
    assert reasons["refused"][0] == 2
    assert "max_stepz" in reasons["refused"][1]
    assert not reasons["refused"][1].startswith("error: ")
    assert max(together) == 2
    for name in "ab":
        assert f"{name}, seed 0: started\n" in said
        [folder] = folders(tmp_path / "runs", name)
        assert max(int(row["step"]) for row in rows(folder / "metrics.csv")) == STEPS - 1
    kept = (tmp_path / "progress.log").read_text()
    assert all(line in kept for line in said.splitlines())
    inside = {path.parts[len(tmp_path.parts)] for path in tmp_path.rglob("*")}
    assert inside == {"runs", "jobs", "progress.log", "a.log", "b.log", "refused.log"}


@pytest.mark.slow
@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_a_run_that_is_not_wanted_any_more_is_stopped(
    patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches a run that is killed although it could save, and one that is waited for without end."""
    monkeypatch.setattr(runner, "PATIENCE", patience)
    one = job(tmp_path, "a", "--trainer.max_steps=1000000")
    worse = job(tmp_path, "a", *one.words[-1:], over=lambda: bool(one.metrics.far().validations))
    [ended], _ = run(tmp_path, LocalLauncher(), [worse])
    assert (ended.code, ended.stopped, ended.reason) == (None, True, "")
    if patience:  # without, it may have been quick enough
        assert "SIGTERM: stopped; saved at step" in last_line(one.output)
        assert len(list(tmp_path.glob("runs/a/*/checkpoints/last.ckpt"))) == 1


@pytest.mark.slow
def test_sigterm_stops_all_runs_and_they_go_on(tmp_path: Path):
    """Catches a run that goes on alone, one that saves nothing, and one that begins anew."""
    jobs = [job(tmp_path, name, f"--trainer.max_steps={STEPS + 400}") for name in "ab"]

    def look(progress: Progress) -> None:
        if all(one.metrics.far().step > 5 for one in jobs):
            os.kill(os.getpid(), signal.SIGTERM)

    with sigterm_interrupts(), pytest.raises(Interrupted):
        run(tmp_path, LocalLauncher(), jobs, 2, look)
    for one in jobs:
        assert "SIGTERM: stopped; saved at step" in last_line(one.output)
    assert "stopping 2 of the runs" in (tmp_path / "progress.log").read_text()
    ended, said = run(tmp_path, LocalLauncher(), jobs, 2)
    assert [one.code for one in ended] == [0, 0]
    assert said.count("started at step ") == 2
    for name in "ab":
        [folder] = folders(tmp_path / "runs", name)
        assert [int(row["step"]) for row in rows(folder / "metrics.csv") if row["train/loss"]] == list(
            range(STEPS + 400)
        )


PARENT = """
import sys
from pathlib import Path
from leo_lightning.commands.jobs.local_run import LocalLauncher
from tests.commands.jobs.tiny_jobs import job, run
folder = Path(sys.argv[1])
run(folder, LocalLauncher(), [job(folder, "a", "--trainer.max_steps=100000")])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_ends_with_its_parent(number: signal.Signals, tmp_path: Path):
    """Catches Ctrl-C of a terminal, which reaches all processes, that kills a run before it has saved.

    Also a run that outlives a parent that was killed.
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    one = job(tmp_path, "a")
    deadline = time.monotonic() + 240
    while one.metrics.far().step < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)
    else:
        parent.kill()
    parent.wait(timeout=120)
    [metrics] = tmp_path.glob("runs/a/*/metrics.csv")
    time.sleep(1)
    size = metrics.stat().st_size
    time.sleep(2)
    assert metrics.stat().st_size == size
    if number == signal.SIGINT:
        assert "SIGTERM: stopped; saved at step" in last_line(one.output)


def test_the_last_line_is_not_blank_and_short(tmp_path: Path):
    """Catches blank lines at the end, half a letter at the start, and control characters of a terminal."""
    path = tmp_path / "log.txt"
    path.write_text("é" * 5000 + "\n\x1b[31mred\n \n")
    assert last_line(path) == "?[31mred"
    path.write_text("é" * 5000)
    assert len(last_line(path)) == 200
    path.write_text("")
    assert last_line(path) == ""
    assert failure(1, path) == "ended with exit code 1"
    assert failure(1, tmp_path / "nowhere") == "ended with exit code 1"
