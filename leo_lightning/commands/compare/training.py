"""Training: one child process for each method, which resumes what was begun and repeats nothing."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from leo_lightning.commands.compare.entrants import Entrant
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.common.errors import InputError, Interrupted, printable
from leo_lightning.common.files import whole_file
from leo_lightning.runs.folder import newest_checkpoint
from leo_lightning.training.checkpoint import read_checkpoint

TRAIN = Path(__file__).resolve().parents[3] / "train.py"
POLL = 0.2
"""Seconds between two looks at a child."""
SAVE_CLOCK = 10.0
"""Seconds of training that a kill of this process may leave uncounted."""


class TrainingFailed(Exception):
    """A child ended with an error; the others may yet do well."""


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    last: Path
    best: Path | None
    """None if nothing was validated."""
    steps: int
    seconds: float
    """Wall time of all its processes: their start and validation are part of it."""

    @property
    def tested(self) -> Path:
        """The checkpoint that train.py would test."""
        return self.best or self.last


def finished_run(entrant: Entrant, plan: Plan) -> Run | None:
    """The run of a method that has come to the plan's last step; None if there is none."""
    name = _run_name(entrant, plan)
    last = newest_checkpoint(plan.runs, name, "last")
    if last is None or _step(last) != plan.steps:
        return None
    best = last.with_name("best.ckpt")
    return Run(last, best if best.is_file() else None, plan.steps, _read_clock(_clock(plan, name)))


def replaces(entrant: Entrant, plan: Plan) -> bool:
    """Whether runs of this method were begun, but all with another configuration or other features."""
    begun = [folder.name for folder in plan.runs.glob(f"{entrant.method.slug}.*")]
    return bool(begun) and not any(name.startswith(entrant.run_name) for name in begun)


def train(entrant: Entrant, plan: Plan, lock: int, show: Callable[[str], None]) -> None:
    """Train a method up to the plan's last step, from where it stands.

    Args:
        entrant: the method.
        plan: the plan.
        lock: file descriptor that the child keeps open: see `lock_folder`.
        show: called now and then with the last line that the child printed.

    Raises:
        TrainingFailed: the child's last line.
        Interrupted: a signal came; the child has saved what it had.
    """
    name = _run_name(entrant, plan)
    command = [
        sys.executable, str(TRAIN), "fit", *entrant.flags,
        f"--run.root={plan.runs}", f"--run.name={name}", "--resume=auto",
    ]  # fmt: skip
    log, clock = plan.log(entrant.method), _clock(plan, name)
    for folder in (log.parent, clock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    before, started = _read_clock(clock), time.monotonic()
    saved = started

    def tick(final: bool = False) -> None:
        nonlocal saved
        now = time.monotonic()
        if final or now - saved >= SAVE_CLOCK:
            saved = now
            with whole_file(clock) as part:
                part.write_text(json.dumps({"seconds": before + now - started}))
        show(last_line(log))

    with log.open("ab") as file:
        file.write(f"$ {shlex.join(['python', 'train.py', *command[2:]])}\n".encode())
        file.flush()
        try:
            code = _watch(command, file.fileno(), lock, tick)
        finally:  # after a signal, too
            tick(final=True)
    said = last_line(log)
    if code < 0:
        raise TrainingFailed(f"ended by {signal.Signals(-code).name}; its last line: {said}")
    if code:
        raise TrainingFailed(said.removeprefix("error: "))
    if finished_run(entrant, plan) is None:
        raise TrainingFailed(f"ended before step {plan.steps}; its last line: {said}")


def _watch(command: list[str], output: int, lock: int, tick: Callable[[], None]) -> int:
    """Run a child to its end; signals to this process are passed on, and the child ends as it sees fit."""
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    with _handled(pass_on):
        # a session of its own: Ctrl-C in a terminal would reach the child twice
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
        children.append(child)
        try:
            for number in received:  # before there was a child
                child.send_signal(number)
            while True:
                try:
                    code = child.wait(POLL)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if received:
        raise Interrupted(received[0])
    return code


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM in another way for a while, but not where they are ignored (nohup)."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def _run_name(entrant: Entrant, plan: Plan) -> str:
    """Name of the run; one of its own if the usual one has gone further than the plan does."""
    last = newest_checkpoint(plan.runs, entrant.run_name, "last")
    return f"{entrant.run_name}.{plan.steps}" if last and _step(last) > plan.steps else entrant.run_name


def _step(checkpoint: Path) -> int:
    return read_checkpoint(checkpoint)["global_step"]


def _clock(plan: Plan, name: str) -> Path:
    return plan.runs / name / "seconds.json"


def _read_clock(path: Path) -> float:
    try:
        return float(json.loads(path.read_text())["seconds"])
    except FileNotFoundError:
        return 0.0
    except (ValueError, LookupError, TypeError):
        raise InputError(f"{path}: is damaged; remove it, and training times begin anew") from None
