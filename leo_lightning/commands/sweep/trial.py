"""A trial: a run of train.py's command in a process of its own, and what is read off its folder.

All processes are forked from one that has imported everything, so that a trial starts at once, and leaves
neither memory nor a changed setting behind.
"""

import csv
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory

from leo_lightning.common.errors import InputError, printable

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["leo_lightning.commands.train"])

PATIENCE = 30.0
"""Seconds that a run has to stop before it is killed."""

LOOK = 0.5
"""Seconds between two looks at a run."""


def run_command(
    arguments: list[str], output: Path, errors: Path, over: Callable[[], bool] = lambda: False
) -> int:
    """Run train.py's command in a new process; Ctrl-C ends it, too.

    Args:
        arguments: what follows `train.py` on the command line.
        output: file for what it prints.
        errors: file for what it says on stderr.
        over: asked now and then whether to end it.

    Returns:
        Exit code; that of a process that a signal ended is negative.
    """
    process = _processes.Process(target=_command, args=(arguments, os.getcwd(), output, errors))
    process.start()
    try:
        while process.is_alive() and not over():
            process.join(LOOK)
    finally:
        if process.is_alive():
            process.terminate()
            process.join(PATIENCE)
            process.kill()
            process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _command(arguments: list[str], folder: str, output: Path, errors: Path) -> None:
    """What the process does, in the folder that this one is in."""
    os.chdir(folder)
    for path, stream in ((output, 1), (errors, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from leo_lightning.commands.train import main
    from leo_lightning.runs.process import keep_freed_memory

    keep_freed_memory()
    sys.exit(main(arguments))


def _end_with_parent() -> None:
    """A sweep that is killed leaves no trial behind that goes on computing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def resolve(arguments: list[str]) -> str:
    """The resolved configuration of a command, as --print_config has it.

    Raises:
        InputError: says why train.py does not take the arguments.
    """
    with TemporaryDirectory() as name:
        output, errors = Path(name) / "output.txt", Path(name) / "errors.txt"
        code = run_command([*arguments, "--print_config=skip_null"], output, errors)
        if code:
            why = reason(code, errors).replace("see --help", "see `python train.py fit --help`")
            raise InputError(f"train.py refuses the command: {why}")
        return output.read_text(encoding="utf-8")


def reason(code: int, errors: Path) -> str:
    """Why a run has failed, on one line."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    return printable(lines[-1].removeprefix("error: ")) if lines else f"ended with exit code {code}"


def validations(folder: Path, metric: str) -> list[tuple[float, int]]:
    """The scores of a run's validations so far, each with the number of steps trained until then.

    Args:
        folder: of the run.
        metric: name of the score.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(float(row[metric]), int(row["step"]) + 1) for row in csv.DictReader(file) if row.get(metric)]
