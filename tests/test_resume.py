"""Stopping and going on: the same run as if it had never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.runs import TINY, folders, rows

ROOT = Path(__file__).resolve().parents[1]
SIZES = [*TINY, "--trainer.max_steps=61", "--data.steps_per_epoch=20", "--run.checkpoint_every=7"]


def command(root: Path, name: str, *args: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "train.py"),
        "fit",
        *SIZES,
        f"--run.root={root}",
        f"--run.name={name}",
        *args,
    ]


def steps_logged(root: Path, name: str) -> int:
    paths = list((root / name).glob("*/metrics.csv"))
    text = paths[0].read_text() if paths else ""
    return text.count("\n")


def run_and_kill(root: Path, name: str, after_lines: int, how: int, *args: str) -> None:
    """Start training and kill it once it has logged so many lines."""
    process = subprocess.Popen(
        command(root, name, *args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while steps_logged(root, name) < after_lines:
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, how)
    process.wait(60)


def trained(root: Path, name: str) -> dict:
    (folder,) = folders(root, name)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def history(root: Path, name: str) -> list[dict[str, str]]:
    (folder,) = folders(root, name)
    return [
        {k: v for k, v in row.items() if k != "train/tasks_per_second"}
        for row in rows(folder / "metrics.csv")
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    subprocess.run(command(root, "whole"), check=True, capture_output=True)
    return root


@pytest.mark.parametrize(("lines", "workers", "every"), [(18, 0, 7), (40, 2, 7), (24, 0, 20)])
def test_killed_and_resumed_is_the_same_run(
    lines: int, workers: int, every: int, uninterrupted: Path, tmp_path: Path
):
    """Catches what a checkpoint forgets: tasks replayed, noise drawn anew, moments or validations lost.

    The kill comes in the middle of the first or the second epoch, between two checkpoints; the last case goes
    on from a checkpoint that was written after validation.
    """
    options = [f"--data.num_workers={workers}", f"--run.checkpoint_every={every}"]
    run_and_kill(tmp_path, "killed", lines, signal.SIGKILL, *options)
    resume = command(tmp_path, "killed", *options, "--resume=auto")
    done = subprocess.run(resume, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    step = next(line for line in done.stdout.splitlines() if line.startswith("resumed"))
    assert "last.ckpt, step " in step
    assert int(step.rsplit(" ", 1)[1]) > 0
    ours, theirs = trained(tmp_path, "killed"), trained(uninterrupted, "whole")
    assert ours["global_step"] == theirs["global_step"] == 61
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    for mine, other in zip(
        ours["optimizer_states"][0]["state"].values(),
        theirs["optimizer_states"][0]["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(mine[key], other[key]) for key in other)
    assert history(tmp_path, "killed") == history(uninterrupted, "whole")


def test_log_lines_keep_their_steps_after_a_validation(tmp_path: Path):
    """Catches Lightning's count of logged steps lagging after such a resume: the last line is lost."""
    options = ["--run.checkpoint_every=20", "--trainer.log_every_n_steps=5"]
    run_and_kill(tmp_path, "killed", 7, signal.SIGKILL, *options)
    longer = ["--resume=auto", "--data.steps_per_epoch=40", "--trainer.max_steps=40"]
    subprocess.run(command(tmp_path, "killed", *options, *longer), check=True, capture_output=True)
    steps = [int(row["step"]) for row in history(tmp_path, "killed") if row["train/loss"]]
    assert steps == [4, 9, 14, 19, 24, 29, 34, 39]
