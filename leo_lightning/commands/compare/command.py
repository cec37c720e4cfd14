"""`python -m leo_lightning compare`: train, evaluate and compare methods on the same tasks.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.arguments import ArgumentParser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 1 if a method failed, 2 after a user's mistake, 128 + n if signal n ended it.
    """
    return exit_code(
        lambda: _compare(_parser().parse_args(argv)), "interrupted; the same command goes on from here"
    )


def _compare(arguments: argparse.Namespace) -> int:
    from leo_lightning.commands.compare.comparison import compare
    from leo_lightning.commands.compare.plan import read_plan
    from leo_lightning.common.quiet import quiet

    quiet()
    plan = read_plan(
        arguments.config,
        steps=arguments.steps,
        tasks=arguments.tasks,
        root=arguments.root,
        out=arguments.out,
        reference=arguments.reference,
    )
    return 0 if compare(plan, arguments.only, plot=not arguments.no_plot) else 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning compare",
        description="Train, evaluate and compare methods on the same tasks. Trains what is not trained yet, "
        "evaluates what is not evaluated yet, and writes table.md, table.tex, table.csv, plot.png, plot.svg "
        "and plot.csv.",
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="what is compared: see configs/compare")
    add("--steps", type=int, metavar="N", help="training steps of each method, in place of the file's")
    add("--tasks", type=int, metavar="N", help="test tasks, in place of the file's")
    add("--root", type=Path, metavar="DIR", help="folder of features, in place of the file's")
    add("--out", type=Path, metavar="DIR", help="where everything goes, in place of the file's")
    add(
        "--reference",
        metavar="LABEL",
        help="the method that differences are taken to, in place of the file's",
    )
    add(
        "--only",
        action="append",
        metavar="LABEL",
        help="train and evaluate this method only (again for more); the table has what is known of others",
    )
    add("--no-plot", action="store_true", help="leave the figure out")
    return parser
