"""Runs on a cluster: SLURM jobs that submitit submits, and that go on whatever becomes of this process."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor, SlurmJob
from submitit.core.utils import FailedJobError, FailedSubmissionError

from leo_lightning.commands.jobs.local_run import called_as, importable, result, undisturbed
from leo_lightning.commands.jobs.verb_job import VerbJob
from leo_lightning.common.errors import InputError, printable
from leo_lightning.common.files import whole_file

ASK = 15.0
"""Seconds between two questions to SLURM."""
REQUEUES = 100
"""Times that a job may reach its time limit. Each time it goes on from where it was."""
COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel")
QUEUE = ["squeue", "--me", "--noheader", "--format=%A"]


class SlurmLauncher:
    """Submits runs to SLURM, and asks now and then what has become of all of them.

    Args:
        settings: parameters of submitit's executor.

    Raises:
        InputError: SLURM's commands are not there.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        for command in COMMANDS:
            if shutil.which(command) is None:
                raise InputError(
                    f"--launcher slurm: {command} was not found; run this where SLURM's commands are"
                )
        self.settings = settings
        self.answers = 0
        self._asked = float("-inf")
        self._queue: set[str] | None = None

    def start(self, folder: Path, name: str, words: Sequence[str], output: Path, errors: Path) -> "SlurmRun":
        """Submit a run, or find its job if an earlier command has left it in the queue.

        Args:
            folder: folder of submitit. A file in it keeps the number of the job.
            name: name of the run and of its job.
            words: the verb and its arguments.
            output: file to append stdout to.
            errors: file to append stderr to.

        Raises:
            InputError: SLURM refuses the job.
        """
        number = self._left(folder, name)
        if number is not None:
            return SlurmRun(SlurmJob(folder, number), self, folder / f"{name}.id")
        executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
        executor.update_parameters(job_name=name, **self.settings)
        files = [str(path.absolute()) for path in (output, errors)]
        verb = VerbJob(words, called_as(), str(Path.cwd()), *files, local=False)
        with undisturbed(), importable():
            try:
                job = executor.submit(verb)
            except (FailedJobError, FailedSubmissionError) as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                reason = printable(lines[-1] if lines else "no reason given").removeprefix("sbatch: error: ")
                raise InputError(f"sbatch refuses the job: {reason}; change --launcher") from None
            with whole_file(folder / f"{name}.id") as part:
                part.write_text(job.job_id)
        assert isinstance(job, SlurmJob)
        return SlurmRun(job, self, folder / f"{name}.id")

    def continues(self, folder: Path, name: str) -> bool:
        """Whether an earlier command has left the job of this run in the queue."""
        return self._left(folder, name) is not None

    def _left(self, folder: Path, name: str) -> str | None:
        try:
            number = (folder / f"{name}.id").read_text()
        except FileNotFoundError:
            return None
        self.ask()
        return number if number.isdigit() and self.has(number) else None

    def ask(self) -> None:
        """Ask SLURM, unless it was asked a moment ago."""
        if time.monotonic() < self._asked + ASK:
            return
        SlurmJob.watcher.update()
        answer = subprocess.run(QUEUE, capture_output=True, text=True, check=False)
        self._queue = set(answer.stdout.split()) if answer.returncode == 0 else None
        self.answers += 1
        self._asked = time.monotonic()

    def has(self, number: str) -> bool:
        """Whether a job waited or ran when SLURM was last asked, or SLURM did not answer."""
        return self._queue is None or number in self._queue


class SlurmRun:
    """A verb in a SLURM job."""

    def __init__(self, job: "SlurmJob[int]", launcher: SlurmLauncher, file: Path) -> None:
        self._job = job
        self._launcher = launcher
        self._file = file
        self._answers, self._missed = launcher.answers, 0
        self._ran = False

    def state(self) -> str:
        """`waiting`, `running`, `preempted` if it waits to go on, or `over`."""
        self._launcher.ask()
        if self._job.done() or self._left_the_queue():
            self._file.unlink(missing_ok=True)
            return "over"
        word = self._job.state
        self._ran |= word == "RUNNING"
        if word in ("REQUEUED", "PREEMPTED") or (word == "PENDING" and self._ran):
            return "preempted"
        return "running" if word == "RUNNING" or self._job.paths.stdout.exists() else "waiting"

    def _left_the_queue(self) -> bool:
        """Whether two answers lack the job; submitit believes that one that was preempted for good waits."""
        if self._launcher.answers > self._answers:
            self._answers = self._launcher.answers
            self._missed = 0 if self._launcher.has(self._job.job_id) else self._missed + 1
        return self._missed > 1

    def code(self) -> int | None:
        """Exit code of a run that is over; None if it left none, since it was stopped or killed."""
        finished = self._job.paths.result_pickle.exists() or self._job.state == "COMPLETED"
        return result(self._job) if finished else None

    def end(self) -> str:
        """Why a run that is over left no exit code."""
        return f"SLURM says {printable(self._job.state)} of job {self._job.job_id}"

    def stop(self) -> None:
        """Cancel the job; SLURM lets it save what it has."""
        self._job.cancel(check=False)

    kill = stop

    def close(self) -> None:
        """Do nothing: the job is SLURM's."""
