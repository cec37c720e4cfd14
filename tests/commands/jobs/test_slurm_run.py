"""Runs through SLURM, for which a stand-in runs the submission script as a process."""

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from submitit import SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

from benchmarks.crash import differences
from leo_lightning.commands.jobs import runner, slurm_run
from leo_lightning.commands.jobs.launcher import add_flags, launcher_of
from leo_lightning.commands.jobs.progress import Progress
from leo_lightning.commands.jobs.slurm_run import SlurmLauncher
from leo_lightning.common.errors import InputError
from tests.commands.jobs import slurm_stand_in
from tests.commands.jobs.tiny_jobs import job, run, words
from tests.tiny_run import folders, main


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands on PATH; the file in which they say what happens."""
    log = slurm_stand_in.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm_run, "ASK", 0.2)
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher())  # which remembers the jobs of other tests
    monkeypatch.setattr(runner, "LOOK", 0.05)
    return log


@pytest.mark.slow
@pytest.mark.parametrize("signals", [["USR2"], ["TERM", "USR2"]])
def test_a_preempted_run_is_requeued_and_ends_as_if_it_had_not_been(
    signals: list[str], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Against a run that is left alone, bit for bit.

    Catches steps that are lost or taken twice, a job that is not requeued, one whose SIGTERM comes first and
    ends it, and a run that counts as failed while it waits.
    """
    states, preempted = [], []
    longer = "--trainer.max_steps=160"  # else it might be over before it is preempted
    one = job(tmp_path, "cut", longer)

    def look(progress: Progress) -> None:
        states.append(progress.rows["cut"].state)
        if one.metrics.far().step >= 25 and not preempted:
            preempted.append(one.metrics.far().step)
            for name in signals:
                subprocess.run(["scancel", f"--signal={name}", "100"], check=True)

    [ended], said = run(tmp_path, SlurmLauncher({"time": 60}), [one], look=look)
    print(log.read_text(), said)
    assert (ended.code, ended.reason) == (0, "")
    changes = [state for i, state in enumerate(states) if states[i - 1 : i] != [state]]
    assert [state for state in changes if state != "waiting"] == ["running", "preempted", "running"]
    assert log.read_text().count("RUNNING") == 2
    assert "100 scontrol requeue" in log.read_text()
    assert 25 <= int(said.split("preempted at step ")[1].split()[0]) < 160
    assert "resumed" in (tmp_path / "cut.log").read_text()
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])  # Lightning would ask for srun
    assert main(words(tmp_path, "whole", longer)) == 0
    [cut], [whole] = (folders(tmp_path / "runs", name) for name in ("cut", "whole"))
    assert list(differences(cut, whole)) == []


@pytest.mark.slow
def test_what_an_earlier_command_has_left_is_found_again(log: Path, tmp_path: Path):
    """Catches a second job for a run that is still in the queue, and a lost result."""
    one, launcher = job(tmp_path, "one"), SlurmLauncher({"time": 60})
    words = one.words
    first = launcher.start(tmp_path / "jobs", "one", words, one.output, one.errors)
    assert first.state() in ("waiting", "running")
    other = SlurmLauncher({"time": 60})
    assert other.continues(tmp_path / "jobs", "one"), log.read_text()
    again = other.start(tmp_path / "jobs", "one", words, one.output, one.errors)
    assert log.read_text().count("submitted") == 1
    wait_until(lambda: again.state() == "over")
    assert again.code() == 0
    assert not SlurmLauncher({}).continues(tmp_path / "jobs", "one")


@pytest.mark.slow
def test_a_run_that_fails_or_is_cancelled_says_why(log: Path, tmp_path: Path):
    """Catches a failure that ends the other runs, and one without a reason."""
    refused = job(tmp_path, "refused", "--trainer.max_stepz=1")
    cancelled = job(tmp_path, "cancelled", "--trainer.max_steps=100000")

    def look(progress: Progress) -> None:
        if cancelled.metrics.far().step >= 5 and "101 scancel" not in log.read_text():
            subprocess.run(["scancel", "101"], check=True)

    ended, said = run(tmp_path, SlurmLauncher({"time": 60}), [refused, cancelled], 2, look)
    reasons = {one.job.name: one.reason for one in ended}
    assert "max_stepz" in reasons["refused"]
    assert reasons["cancelled"] == "SLURM says CANCELLED of job 101"
    assert "SIGTERM: stopped; saved at step" in cancelled.output.read_text()


def test_flags_reach_the_submission_script(log: Path, tmp_path: Path):
    """Catches a flag that is dropped or has another name for sbatch, and a refusal that shows a traceback."""
    parser = argparse.ArgumentParser()
    add_flags(parser, "trainings")
    typed = (
        "--jobs 3 --launcher slurm --launcher.partition fast --launcher.account mine --launcher.time 30 "
        "--launcher.gpus 1 --launcher.cpus 2 --launcher.memory 16G --launcher.set qos=low "
        "--launcher.set exclusive"
    )
    launcher = launcher_of(parser.parse_args(typed.split()))
    place = tmp_path / "one.log"
    started = launcher.start(tmp_path / "jobs", "one", ["methods"], place, place)
    script = (tmp_path / "jobs" / "100_submission.sh").read_text()
    wanted = (
        "partition=fast", "account=mine", "time=30", "gpus-per-node=1", "cpus-per-task=2", "mem=16G",
        "qos=low", "exclusive", "requeue", "job-name=one", "signal=USR2@90",
    )  # fmt: skip
    assert [word for word in wanted if f"#SBATCH --{word}\n" not in script] == []
    started.stop()
    wait_until(lambda: started.state() == "over")
    with pytest.raises(InputError, match=r"^sbatch refuses the job: invalid partition specified: refused;"):
        SlurmLauncher({"partition": "refused"}).start(tmp_path / "jobs", "two", ["methods"], place, place)


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for something that takes its time on a busy machine."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
