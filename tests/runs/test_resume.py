"""Stopping and going on: the same run as if it had never stopped."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.crash import STEPS_PER_KILL, Kill, crash, differences
from tests.places import ROOT
from tests.tiny_run import TINY, files, folders, rows, tiny


def command(root: Path, *args: str, steps: int = 10**6, what: str = "fit") -> list[str]:
    return [
        sys.executable, str(ROOT / "train.py"), what, *TINY, f"--trainer.max_steps={steps}",
        "--data.steps_per_epoch=20", "--run.checkpoint_every=7", f"--run.root={root}", "--run.name=tiny",
        *args,
    ]  # fmt: skip


def start(arguments: list[str], before: Callable[[], object] | None = None, **environment: str):
    """A process that heeds Ctrl-C, even if the one that runs the tests was told not to."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before:
            before()

    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        preexec_fn=prepare,
    )


def wait_for(process: subprocess.Popen, root: Path, pattern: str, lines: int) -> None:
    """Until a file of the run has so many lines."""
    deadline = time.monotonic() + 120
    while not any(path.read_bytes().count(b"\n") >= lines for path in root.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def steps_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        (0, [Kill("step", 17), Kill("validation", 3), Kill("write", 2)]),
        (2, [Kill("written", 1), Kill("step", 9)]),
    ],
)
def test_killed_and_resumed_is_the_same_run(workers: int, kills: list[Kill], tmp_path: Path):
    """Catches what a checkpoint forgets: tasks or noise drawn anew, lost moments, validations or log lines.

    `python -m benchmarks.crash` does the same with any number of kills.
    """
    steps = STEPS_PER_KILL * len(kills)
    said = list(crash(tmp_path, kills, workers, steps))
    assert [line for line in said if line.startswith("DIFFERS")] == []
    assert len(said) == len(kills) + 1


def test_differences_are_noticed(tmp_path: Path):
    """Catches a comparison of two runs that compares nothing."""
    for name, seed in (("a", 0), ("b", 1)):
        done = subprocess.run(
            command(tmp_path / name, f"--seed_everything={seed}", steps=20), capture_output=True
        )
        assert done.returncode == 0
    a, b = (folders(tmp_path / name)[0] for name in "ab")
    assert list(differences(a, a)) == []
    assert {"state_dict of last.ckpt", "optimizer_states of best.ckpt"} <= set(differences(a, b))
    (a / "metrics.csv").write_text("step,epoch\n")
    assert "metrics.csv (0 and 21 lines)" in list(differences(a, b))


def test_log_lines_keep_their_steps_after_a_validation(tmp_path: Path):
    """Catches Lightning's count of logged steps running ahead after such a resume: a log line is lost."""
    options = ["--run.checkpoint_every=20", "--trainer.log_every_n_steps=5"]
    subprocess.run(command(tmp_path, *options, steps=20), check=True, capture_output=True)
    longer = ["--resume=auto", "--data.steps_per_epoch=40"]
    subprocess.run(command(tmp_path, *options, *longer, steps=40), check=True, capture_output=True)
    steps = [int(row["step"]) for row in rows(folders(tmp_path)[0] / "metrics.csv") if row["train/loss"]]
    assert steps == [4, 9, 14, 19, 24, 29, 34, 39]


def test_best_checkpoint_stays_the_best_in_a_moved_run(tmp_path: Path):
    """Catches a best.ckpt overwritten by the first validation after resuming, be it worse or not."""
    assert tiny(tmp_path, command="fit") == 0
    moved = folders(tmp_path)[0].rename(tmp_path / "tiny" / "elsewhere") / "checkpoints"
    last = torch.load(moved / "last.ckpt", weights_only=True)
    (best,) = (state for name, state in last["callbacks"].items() if name.startswith("BestCheckpoint"))
    best["best_model_score"].fill_(2.0)  # nothing beats that
    torch.save(last, moved / "last.ckpt")
    before = (moved / "best.ckpt").read_bytes()
    assert tiny(tmp_path, "--resume=auto", "--trainer.max_steps=9", command="fit") == 0
    assert steps_of(moved / "last.ckpt") == 9
    assert (moved / "best.ckpt").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_at_hand(number: signal.Signals, tmp_path: Path):
    """Catches a lost step, a traceback, and an exit code that scripts take for success."""
    process = start(command(tmp_path))
    wait_for(process, tmp_path, "tiny/*/metrics.csv", 30)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == ""
    (folder,) = folders(tmp_path)
    last = folder / "checkpoints" / "last.ckpt"
    step = steps_of(last)
    assert step == 1 + int(rows(folder / "metrics.csv")[-1]["step"])  # none is lost
    line = out.splitlines()[-1]
    assert line.startswith(f"{number.name}: stopped; saved at step {step}, go on with: python train.py fit")
    assert line.endswith(str(last))
    resumed = [sys.executable, str(ROOT / "train.py"), *line.partition("train.py ")[2].split()]
    done = subprocess.run([*resumed, f"--trainer.max_steps={step + 3}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert steps_of(last) == step + 3


def test_a_second_signal_stops_at_once_and_spoils_nothing(tmp_path: Path):
    """Catches a process that must be killed because a validation takes hours, and a checkpoint cut in two."""
    # the validation after step 20 would take minutes
    process = start(command(tmp_path, "--data.val_tasks=1000000"))
    wait_for(process, tmp_path, "tiny/*/metrics.csv", 21)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None  # the first one waits for the step, to which the validation belongs
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-1].startswith("SIGINT: stopped; saved at step 14, go on with: ")
    checkpoints = folders(tmp_path)[0] / "checkpoints"
    assert [path.name for path in files(checkpoints)] == ["last.ckpt"]
    assert steps_of(checkpoints / "last.ckpt") == 14


def test_ctrl_c_while_importing(tmp_path: Path):
    """Catches a traceback out of an import."""
    process = start(command(tmp_path))
    time.sleep(2)  # of five or more
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT  # 130 in a shell


def test_a_signal_ends_a_test_at_once(tmp_path: Path):
    """Catches an interrupted test that exits with 0, or that leaves half a result."""
    assert tiny(tmp_path, command="fit", name="model") == 0
    checkpoint = folders(tmp_path, "model")[0] / "checkpoints" / "best.ckpt"
    python, train, *_ = command(tmp_path)
    options = [f"--ckpt_path={checkpoint}", f"--run.root={tmp_path}", "--run.name=tiny"]
    process = start([python, train, "test", *options, "--data.test_tasks=10000000"])
    while not catches(process, signal.SIGTERM):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert out.splitlines()[-1] == "SIGTERM: stopped"
    assert [path.name for path in files(folders(tmp_path)[0])] == ["config.yaml"]


def catches(process: subprocess.Popen, number: int) -> bool:
    """Whether the process has a handler for a signal by now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


def test_slurm_gets_its_job_back(tmp_path: Path):
    """Catches a requeue signal that kills the job, or that puts no job back into the queue."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    job = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "leo", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip
    root = tmp_path / "runs"

    def job_script(*args: str, **options: int) -> list[str]:
        """One command for the first start and all later ones."""
        python, train, fit, *rest = command(root, *args, **options)
        return [
            python,
            train,
            fit,
            f"--config={ROOT / 'configs' / 'quickstart.yaml'}",
            *rest,
            "--resume=auto",
        ]

    process = start(job_script(), **job)
    wait_for(process, root, "tiny/*/metrics.csv", 30)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, err
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert "resumed nothing: no run of this name has a checkpoint" in out
    assert "SIGUSR1: stopped; saved at step " in out
    step = steps_of(folders(root)[0] / "checkpoints" / "last.ckpt")
    again = start(job_script(steps=step + 2), **job)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert f"last.ckpt, step {step}" in out


def test_full_disk_spoils_nothing(tmp_path: Path):
    """Catches a checkpoint overwritten by half of the next one, and a traceback where one line will do."""
    small = ["--trainer.logger=false", "--trainer.log_every_n_steps=20", "--trainer.limit_val_batches=0"]
    assert subprocess.run(command(tmp_path, *small, steps=14), capture_output=True).returncode == 0
    checkpoints = folders(tmp_path)[0] / "checkpoints"
    before = (checkpoints / "last.ckpt").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)

    process = start(command(tmp_path, *small, "--resume=auto", steps=40), limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {checkpoints / 'last.ckpt'}: cannot be written (File too large)")
    assert (checkpoints / "last.ckpt").read_bytes() == before
    assert [path.name for path in files(checkpoints)] == ["last.ckpt"]
    done = subprocess.run(command(tmp_path, *small, "--resume=auto", steps=16), capture_output=True)
    assert done.returncode == 0
    assert steps_of(checkpoints / "last.ckpt") == 16
