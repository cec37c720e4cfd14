"""Stopping and resuming: the same run as if it had never stopped."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.crash import STEPS_PER_KILL, Kill, crash, differences
from leo_lightning.common.errors import Interrupted
from leo_lightning.runs.callbacks.results import ResultsReport
from tests.child import Child, run, start
from tests.places import ROOT
from tests.runs.long_run import command, steps_of, wait_for
from tests.tiny_run import files, folders, main, results, rows, tiny


def in_child(arguments: list[str]) -> tuple[int, str]:
    """Run what `benchmarks.crash` would start as a process of its own."""
    child = run(*arguments, target="benchmarks.crash:train")
    return child.wait(), "".join(child.output())


@pytest.mark.slow
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
    lines = list(crash(tmp_path, kills, workers, STEPS_PER_KILL * len(kills), in_child))
    assert [line for line in lines if line.startswith("DIFFERS")] == []
    assert len(lines) == len(kills) + 1


def test_differences_are_noticed(tmp_path: Path):
    """Catches a comparison of two runs that compares nothing."""
    for name, seed in (("a", 0), ("b", 1)):
        assert main(command(tmp_path / name, f"--seed_everything={seed}", steps=20)) == 0
    a, b = (folders(tmp_path / name)[0] for name in "ab")
    assert list(differences(a, a)) == []
    assert {"state_dict of last.ckpt", "optimizer_states of best.ckpt"} <= set(differences(a, b))
    (a / "metrics.csv").write_text("step,epoch\n")
    assert "metrics.csv (0 and 21 lines)" in list(differences(a, b))


def test_log_lines_keep_their_steps_after_a_validation(tmp_path: Path):
    """Catches Lightning's count of logged steps running ahead after such a resume: a log line is lost."""
    options = ["--run.checkpoint_every=20", "--trainer.log_every_n_steps=5"]
    assert main(command(tmp_path, *options, steps=20)) == 0
    assert main(command(tmp_path, *options, "--resume=auto", "--data.steps_per_epoch=40", steps=40)) == 0
    steps = [int(row["step"]) for row in rows(folders(tmp_path)[0] / "metrics.csv") if row["train/loss"]]
    assert steps == [4, 9, 14, 19, 24, 29, 34, 39]


def test_best_checkpoint_stays_the_best_in_a_moved_run(tmp_path: Path):
    """Catches a best.ckpt overwritten by the first validation after resuming, whether it is worse or not."""
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


PATIENT = [
    "--trainer.callbacks=EarlyStopping",
    "--trainer.callbacks.monitor=val/accuracy",
    "--trainer.callbacks.mode=max",
    "--trainer.callbacks.min_delta=0.5",  # which no validation reaches
    "--trainer.logger=false",
]


@pytest.mark.slow
def test_early_stopping_decides_as_if_the_run_had_never_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a validation that EarlyStopping misses or counts twice where last.ckpt ends an epoch.

    Also a run that it has ended, and that trains on when it is resumed.
    """
    runs = {"whole": [100], "cut": [3, 5, 100]}  # three validations, of which the first is the best
    for name, lengths in runs.items():
        for steps in lengths:
            more = [*PATIENT, "--trainer.callbacks.patience=2", f"--trainer.max_steps={steps}"]
            first = [] if steps == lengths[0] else ["--resume=auto"]
            assert tiny(tmp_path, *more, *first, command="fit", name=name) == 0
    whole, cut = (folders(tmp_path, name)[0] for name in runs)
    assert steps_of(whole / "checkpoints" / "last.ckpt") == 9
    assert list(differences(cut, whole)) == []
    before = (cut / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["fit", "--resume=auto", f"--run.root={tmp_path}", "--run.name=cut"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "finished at step 9, nothing is left to do; leave EarlyStopping out" in said
    assert (cut / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGHUP, 0)]
)
def test_a_signal_stops_after_the_current_step(number: signal.Signals, workers: int, tmp_path: Path):
    """Catches a lost step, a traceback, and an exit code that scripts take for success.

    The signal goes to the process group: also catches workers that it ends before the step is over.
    """
    child = start(*command(tmp_path, f"--data.num_workers={workers}"))
    wait_for(child, tmp_path, "tiny/*/metrics.csv", 30)
    os.killpg(child.pid, number)
    out, err = child.communicate()
    assert child.returncode == 128 + number
    assert err == ""
    (folder,) = folders(tmp_path)
    last = folder / "checkpoints" / "last.ckpt"
    step = steps_of(last)
    assert step == 1 + int(rows(folder / "metrics.csv")[-1]["step"])  # none is lost
    line = out.splitlines()[-1]
    assert line.startswith(f"{number.name}: stopped; saved at step {step}")
    assert line.endswith(str(last))
    assert main([*line.partition("train.py ")[2].split(), f"--trainer.max_steps={step + 3}"]) == 0
    assert steps_of(last) == step + 3


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_spoils_nothing(tmp_path: Path):
    """Catches a process that must be killed because a validation takes hours, and a checkpoint cut in two."""
    # the validation after step 20 would take minutes
    child = start(*command(tmp_path, "--data.val_tasks=1000000"))
    wait_for(child, tmp_path, "tiny/*/metrics.csv", 21)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert child.poll() is None  # the first one waits for the step, to which the validation belongs
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, err) == (130, "")
    assert out.splitlines()[-1].startswith("SIGINT: stopped; saved at step 14")
    checkpoints = folders(tmp_path)[0] / "checkpoints"
    assert [path.name for path in files(checkpoints)] == ["last.ckpt"]
    assert steps_of(checkpoints / "last.ckpt") == 14


@pytest.mark.slow
def test_ctrl_c_while_importing(tmp_path: Path):
    """Catches a traceback out of an import."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # the tests may run in the background, where Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(2)  # of five or more
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT  # 130 in a shell


def test_a_test_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a training that is repeated, or refused as finished, before the test that it still lacks."""

    def stop(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patches:
        patches.setattr(ResultsReport, "on_test_start", stop)
        assert tiny(tmp_path) == 143
    (folder,) = folders(tmp_path)
    before = (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    line = capsys.readouterr().out.splitlines()[-1]
    said, _, command = line.partition("continue with: ")
    assert said == "SIGTERM: stopped; saved at step 6, "
    assert main(command.partition("leo_lightning ")[2].split()) == 0
    assert results(folder)["tasks"] == 40
    assert (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_output_that_nobody_reads_stops_a_run(tmp_path: Path):
    """Catches a traceback after `| head`, a lost step, and a run that trains on unseen."""
    program = [sys.executable, str(ROOT / "train.py"), *command(tmp_path, steps=2000)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("LEO")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
    (folder,) = folders(tmp_path)
    step = steps_of(folder / "checkpoints" / "last.ckpt")
    assert step == 1 + int(rows(folder / "metrics.csv")[-1]["step"])


@pytest.mark.slow
def test_a_signal_ends_a_test_at_once(finished_run: Path, tmp_path: Path):
    """Catches an interrupted test that exits with 0, or that leaves half a result."""
    checkpoint = finished_run / "checkpoints" / "best.ckpt"
    options = [f"--ckpt_path={checkpoint}", f"--run.root={tmp_path}", "--run.name=tiny"]
    child = start("test", *options, "--data.test_tasks=10000000")
    while not catches(child, signal.SIGTERM):
        assert child.poll() is None, child.output()
        time.sleep(0.01)
    time.sleep(1)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate()
    assert (child.returncode, err) == (143, "")
    assert out.splitlines()[-1] == "SIGTERM: stopped"
    assert [path.name for path in files(folders(tmp_path)[0])] == ["config.yaml"]


def catches(child: Child, number: int) -> bool:
    """Whether the process has a handler for a signal by now."""
    try:
        status = Path(f"/proc/{child.pid}/status").read_text()
    except OSError:
        return False
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


@pytest.mark.slow
def test_slurm_gets_its_job_back(tmp_path: Path):
    """Catches a requeue signal that kills the job, or that puts no job back into the queue."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    job = os.environ | {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "leo", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip
    root = tmp_path / "runs"

    def job_script(**options: int) -> list[str]:
        """One command for the first start and all later ones."""
        fit, *rest = command(root, **options)
        return [fit, f"--config={ROOT / 'configs' / 'leo.yaml'}", *rest, "--resume=auto"]

    child = start(*job_script(), environment=job)
    wait_for(child, root, "tiny/*/metrics.csv", 30)
    child.send_signal(signal.SIGUSR1)
    out, err = child.communicate()
    assert child.returncode == 128 + signal.SIGUSR1, err
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert "resumed nothing" in out
    assert "SIGUSR1: stopped; saved at step " in out
    step = steps_of(folders(root)[0] / "checkpoints" / "last.ckpt")
    again = run(*job_script(steps=step + 2), environment=job)
    out, err = again.output()
    assert again.returncode == 0, err
    assert f"last.ckpt, step {step}" in out


def test_full_disk_spoils_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a checkpoint overwritten by half of the next one, and a traceback where one line will do."""
    small = ["--trainer.logger=false", "--trainer.log_every_n_steps=20", "--trainer.limit_val_batches=0"]
    assert main(command(tmp_path, *small, steps=14)) == 0
    checkpoints = folders(tmp_path)[0] / "checkpoints"
    before = (checkpoints / "last.ckpt").read_bytes()
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        assert main(command(tmp_path, *small, "--resume=auto", steps=40)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert str(checkpoints / "last.ckpt") in err
    assert (checkpoints / "last.ckpt").read_bytes() == before
    assert [path.name for path in files(checkpoints)] == ["last.ckpt"]
    assert main(command(tmp_path, *small, "--resume=auto", steps=16)) == 0
    assert steps_of(checkpoints / "last.ckpt") == 16
