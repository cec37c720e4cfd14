"""`python -m leo_lightning sweep`: search hyperparameters on the validation tasks.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError, check_least


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake or if all trials failed, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # as train.py does, for the trials
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    said = shlex.join(["python", "-m", "leo_lightning.commands.sweep", *words])
    return exit_code(lambda: _search(_parser().parse_args(words), said), f"interrupted; go on with: {said}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning sweep",
        description="Search hyperparameters: each trial is a training run, its score the best "
        "validation (accuracy, or squared error). The same command again goes on; two of them at a time "
        "share the work, also on two machines with one disk. At the end the best is tested.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="sweep file, in the format of `wandb sweep`",
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials in all (default: 20)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N",
        help="trials at a time, each with one thread: as many as there are cores (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, metavar="N",
        help="steps per trial, with 10 validations, and T_max of a schedule that ends with the training "
        "(default: those of the sweep file)",
    )  # fmt: skip
    parser.add_argument("--root", metavar="DIR", help="folder of the features (default: the configuration's)")
    parser.add_argument("--shot", type=int, metavar="K", help="K, support images per class")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other trials (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for what is found (default: runs/sweeps/NAME)"
    )
    return parser


def _search(arguments: argparse.Namespace, command: str) -> None:
    numbers = {"--trials": arguments.trials, "--jobs": arguments.jobs}
    check_least(1, {**numbers, "--steps": arguments.steps, "--shot": arguments.shot})
    check_least(0, {"--seed": arguments.seed})
    from rich.console import Console

    from leo_lightning.commands.sweep import report
    from leo_lightning.commands.sweep.final_test import final_test
    from leo_lightning.commands.sweep.search import open_search
    from leo_lightning.commands.sweep.sweep_file import read_sweep

    # a pipe or file has no width, and gets one at which nothing is folded
    console = Console() if sys.stdout.isatty() else Console(width=250)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    sweep = read_sweep(arguments.config)
    if arguments.steps is not None and not sweep.trains:
        raise InputError(f"--steps: {arguments.config} trains nothing; leave it out")
    out = arguments.out or Path("runs") / "sweeps" / arguments.config.stem
    start = time.monotonic()
    with open_search(sweep, out, _flags(arguments), arguments.seed, arguments.steps) as search:
        done = len(search.trials())
        say(
            f"search  {report.counted(arguments.trials, 'trial')} {report.budget(search)}; {sweep.method}, "
            f"{report.counted(len(sweep.space), 'parameter')}{report.early(search)}"
        )
        say(f"data    {report.tasks(search)}")
        there = f", {report.counted(done, 'trial')} {'is' if done == 1 else 'are'} there already"
        say(f"out     {out}" + (there if done else ""))

        best = None

        def ended(trial: report.FrozenTrial) -> None:
            nonlocal best
            say(report.line(search, trial, arguments.trials))
            report.write_trials(search)
            numbers = [one.number for one in search.completed()[:1]]
            if numbers and numbers != best:
                best = numbers
                report.write_best(search, command)

        search.run(arguments.trials, ended, arguments.jobs)
        report.write_trials(search)
        errors = [trial.user_attrs["error"] for trial in search.trials() if "error" in trial.user_attrs]
        if not search.completed() and len(errors) == len(search.trials()):
            raise InputError(f"{out}: all trials failed; the last one: {errors[-1]}")
        if not search.completed():
            say("all trials that are left are run by another process")
            return
        tested = final_test(search)
        report.write_best(search, command, tested)
        console.print(report.table(search))
        if important := report.importance(search.study):
            say(f"importance  {important}")
        say(f"best        {report.verdict(search)}")
        if tested:
            say(f"test        {tested}")
        say(f"time        {time.monotonic() - start:.0f} s")
        say(f"trials      {out / 'trials.csv'}\nconfig      {out / 'best.yaml'}")
        say(f"next\n  python train.py --config {shlex.quote(str(out / 'best.yaml'))}")


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Arguments of train.py for all trials."""
    flags = {"--data.root": arguments.root, "--data.shot": arguments.shot}
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]
