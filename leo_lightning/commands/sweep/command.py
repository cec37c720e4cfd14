"""`python -m leo_lightning sweep`: search hyperparameters on the validation tasks.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.jobs.launcher import add_flags, launcher_of
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.program import called, program


def main(argv: Sequence[str]) -> None:
    """Search hyperparameters."""
    command = f"{called()} sweep {shlex.join(argv)}"
    try:
        _search(_parser().parse_args(argv), command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; continue with: {program()} sweep {shlex.join(argv)}") from None


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} sweep",
        description="Search hyperparameters: each trial is a training run, its score the best validation "
        "(accuracy, or squared error). The same command again continues a search; two at a time share the "
        "work, also on several machines with one disk. At the end the best trial is tested.",
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="sweep file, as for `wandb sweep`")
    add("--trials", type=int, default=20, metavar="N", help="trials in all (default: 20)")
    add(
        "--steps",
        type=int,
        metavar="N",
        help="steps per trial, with 10 validations; a schedule that ends with the training ends with the "
        "trial (default: those of the sweep file)",
    )
    add("--root", metavar="DIR", help="folder of the features (default: the configuration's)")
    add("--shot", type=int, metavar="K", help="K, support images per class")
    add("--seed", type=int, default=0, help="another seed draws other trials (default: 0)")
    add("--out", type=Path, metavar="DIR", help="folder of the results (default: runs/sweeps/NAME)")
    add(
        "--storage",
        metavar="URL|FILE",
        help="where the trials are kept, for a search by several machines: a database, such as "
        "postgresql://USER@HOST/NAME, or a journal on a shared disk (default: study.db in --out)",
    )
    add_flags(parser, "trials")
    return parser


def _search(arguments: argparse.Namespace, command: str) -> None:
    least = {"--trials": arguments.trials, "--steps": arguments.steps}
    check_least(1, {**least, "--shot": arguments.shot})
    check_least(0, {"--seed": arguments.seed})
    launcher = launcher_of(arguments)
    from rich.console import Console

    from leo_lightning.commands.jobs.progress import Progress
    from leo_lightning.commands.jobs.runner import Runner, sigterm_interrupts
    from leo_lightning.commands.sweep import report
    from leo_lightning.commands.sweep.final_test import final_test
    from leo_lightning.commands.sweep.study import open_search, without_password
    from leo_lightning.commands.sweep.sweep_file import read_sweep

    console = Console() if sys.stdout.isatty() else Console(width=250)  # wide enough for whole lines
    if arguments.storage is not None:
        command = command.replace(arguments.storage, without_password(arguments.storage))
    sweep = read_sweep(arguments.config)
    if arguments.steps is not None and not sweep.trains:
        raise InputError(f"--steps: {arguments.config} trains nothing; leave it out")
    out = arguments.out or Path("runs") / "sweeps" / arguments.config.stem
    flags = {"--data.root": arguments.root, "--data.shot": arguments.shot}
    flags = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    start = time.monotonic()
    with sigterm_interrupts():
        search = open_search(sweep, out, flags, arguments.seed, arguments.steps, arguments.storage)
        progress = Progress(out / "progress.log", console, "trial", report.metric(search))
        runner = Runner(launcher, arguments.jobs, out, progress)
        say = progress.say
        done, end = len(search.trials()), sweep.early_end
        early = f"; worse ones end early, from validation {end.min_iter} on" if end else ""
        say(f"trials  {arguments.trials}, each {report.budget(search)}; {sweep.method}{early}")
        say(f"data    {report.tasks(search)}")
        say(f"out     {out}" + (f", which holds {done} of the trials already" if done else ""))

        def ended(trial: "report.FrozenTrial") -> None:
            say(report.line(search, trial, arguments.trials))
            report.write_trials(search)
            if any(best.number == trial.number for best in search.completed()[:1]):
                report.write_best(search, command)

        with progress:
            search.run(arguments.trials, ended, runner)
        report.write_trials(search)
        errors = [trial.user_attrs["error"] for trial in search.trials() if "error" in trial.user_attrs]
        if errors and len(errors) == len(search.trials()):
            raise InputError(f"{out}: all trials failed; the last one: {errors[-1]}")
        if not search.completed():
            say("another process runs all the trials that are left")
            return
        with progress:
            tested = final_test(search, runner)
        report.write_best(search, command, tested)
        console.print(report.table(search))
        if important := report.importance(search):
            say(f"importance  {important}")
        say(f"best        {report.verdict(search)}")
        if tested:
            say(f"test        {tested}")
        say(f"time        {time.monotonic() - start:.0f} s")
        say(f"trials      {out / 'trials.csv'}\nconfig      {out / 'best.yaml'}")
        say(f"next\n  {program()} --config {shlex.quote(str(out / 'best.yaml'))}")
