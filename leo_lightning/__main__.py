"""`python -m leo_lightning VERB`: find the verb and run it. `python train.py VERB` is the same program."""

import atexit
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from leo_lightning.common.breakdowns import breakdown
from leo_lightning.common.closed_pipe import drop_unread_output
from leo_lightning.common.errors import (
    DivergedError,
    Finished,
    FolderTaken,
    InputError,
    Interrupted,
    check_utf8,
    disk_line,
    nearest,
    one_line,
    without_controls,
)
from leo_lightning.common.program import SCRIPT, called
from leo_lightning.common.quiet import quiet
from leo_lightning.common.version import __version__

VERBS = {
    "fit_test": ("train", "train, then test the best checkpoint (the default)"),
    "fit": ("train", "train"),
    "validate": ("train", "evaluate a checkpoint on validation tasks"),
    "test": ("train", "evaluate a checkpoint on test tasks"),
    "predict": ("train", "write the predictions of a checkpoint for test tasks"),
    "classify": ("classify.command", "learn new classes from a few examples, and classify others"),
    "export": ("export", "write a classifier of new classes as a file"),
    "features": ("features", "import, divide, make and look at feature files"),
    "images": ("images", "divide your images, or import and download those of few-shot data sets"),
    "pretrain": ("pretrain.command", "train a backbone on images"),
    "compare": ("compare.command", "train and compare methods on the same tasks"),
    "sweep": ("sweep.command", "search hyperparameters"),
    "figures": ("figures.command", "draw what a trained learner does"),
    "report": ("report.command", "write an HTML page about one run or several"),
    "dashboard": ("dashboard", "save a view of the runs on W&B"),
    "methods": ("methods", "list the few-shot methods"),
}
"""Verb: its module below `commands`, and its line of help."""
LIGHTNING = ("train", "pretrain.command")
"""Modules that import Lightning at once and read the verb themselves."""
LARGE = ("classify", "export", "features", "images", "pretrain")
"""Verbs that run large networks, which use all cores."""


def start() -> NoReturn:
    """Run `main` as this process, and end the process."""
    gc.disable()  # until all is imported: a quarter of the time of importing torch and Lightning
    try:
        code = main()
    except SystemExit as end:  # after --help
        if isinstance(end.code, str):
            raise
        code = end.code or 0
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process as Python does, except that torch's modules are not cleared, which takes a second.

    Whoever runs the program within Python, such as a profiler or a debugger, gets an ordinary SystemExit.
    """
    callers = {frame.f_globals["__name__"] for frame, _ in traceback.walk_stack(sys._getframe())}
    if sys.flags.inspect or not callers <= {__name__, "__main__", "runpy"}:
        sys.exit(code)
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb, `fit_test` if none is given.

    Args:
        argv: what was typed after the program; that of the process if None.

    Returns:
        Exit code: 0; 1 if training diverged or memory ran out; 2 after a user's mistake; 128 + n if signal n
            ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where a terminal lacks a character, as in ±, a ? will do
    try:
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_unread_output()
        return 128 + signal.SIGPIPE


def _main(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"], ["--version"]):
        print(_help() if arguments != ["--version"] else f"{SCRIPT} {__version__}")
        return 0
    named = arguments and not arguments[0].startswith("-")
    verb, rest = (arguments[0], arguments[1:]) if named else ("fit_test", arguments)
    if verb not in VERBS:
        return _failed(f"error: unknown command {verb}{nearest(verb, VERBS)}", 2)
    from leo_lightning.runs.process import prepare_lightning, prepare_process

    prepare_process(one_thread=verb not in LARGE)
    if VERBS[verb][0] in LIGHTNING:
        prepare_lightning()
    return run(verb, rest)


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run one of `VERBS` in a process that is set up already.

    Args:
        verb: the verb.
        arguments: what was typed after it.

    Returns:
        Exit code; see `main`. What a user can mend is said in one line.
    """
    module = VERBS[verb][0]
    quiet()
    try:
        for word in arguments:
            check_utf8(word)
        command = import_module(f"leo_lightning.commands.{module}")
        if not gc.isenabled():
            gc.freeze()  # what is imported stays, and need not be looked through again
            gc.enable()
        return command.main([verb, *arguments] if module == "train" else list(arguments)) or 0
    except InputError as error:
        return _failed(f"error: {' '.join(str(error).split())}", 2)
    except Finished:
        return 0
    except FolderTaken:
        return run(verb, arguments)
    except DivergedError as error:
        return _failed(f"error: {error}", 1)
    except Interrupted as stop:
        # Lightning kills the first process if one that it has started fails
        return 128 + stop.signal if _rank() == 0 else 0
    except KeyboardInterrupt as stop:
        return _failed(str(stop) or "interrupted", 130)
    except Exception as error:
        if broken := breakdown(error):
            return _failed(f"error: {broken[0]}", broken[1])
        if isinstance(error, BrokenPipeError) and drop_unread_output():  # as after `| head`
            return 128 + signal.SIGPIPE
        if isinstance(error, OSError):
            return _failed(f"error: {disk_line(error)}", 2)
        if not _from_lightning(error):
            raise
        return _failed(f"error: trainer: {one_line(error)}", 2)


def _from_lightning(error: Exception) -> bool:
    """Whether Lightning's own code raised it, which so refuses what it was asked for."""
    frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return frame.f_globals.get("__name__", "").split(".")[0] in ("pytorch_lightning", "lightning_fabric")


def _rank() -> int:
    # imported late, since `--help` has no use for it
    from lightning_utilities.core.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0)


def _failed(line: str, code: int) -> int:
    line = without_controls(line)
    print(f"process {_rank()}: {line}" if _rank() else line, file=sys.stderr)
    return code


def _help() -> str:
    lines = (f"  {verb:10} {line}" for verb, (_, line) in VERBS.items())
    return "\n".join(
        [
            f"usage: {called()} [VERB] [--FIELD VALUE ...]",
            "",
            "Train, evaluate and use few-shot learners.",
            "",
            *lines,
            "",
            "VERB --help shows what a verb takes.",
        ]
    )


if __name__ == "__main__":
    start()
