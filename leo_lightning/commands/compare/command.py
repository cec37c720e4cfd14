"""`python -m leo_lightning compare`: train, evaluate and compare methods on the same tasks.

Slow imports are inside the functions, so that `--help` answers at once.
"""

from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.jobs.launcher import add_flags, launcher_of
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.program import called


def main(argv: Sequence[str]) -> int:
    """Compare methods; return 1 if one of them failed."""
    arguments = _parser().parse_args(argv)
    launcher = launcher_of(arguments)
    from leo_lightning.commands.compare.comparison import compare
    from leo_lightning.commands.compare.plan import read_plan
    from leo_lightning.commands.jobs.runner import sigterm_interrupts

    flags = {
        name: getattr(arguments, name)
        for name in ("steps", "patience", "seeds", "tasks", "root", "out", "reference")
    }
    plan = read_plan(arguments.config, **flags)
    try:
        with sigterm_interrupts():
            draw = not arguments.no_plot
            return 0 if compare(plan, launcher, arguments.jobs, arguments.only, draw) else 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command continues from here") from None


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


_numbers.__name__ = "list of numbers"  # argparse names it where a text is not one


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} compare",
        description="Train, evaluate and compare methods on the same tasks. Nothing is trained or evaluated "
        "twice. Writes table.md, table.tex, table.csv, plot.png, plot.svg and plot.csv.",
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the plan: configs/compare has examples")
    add("--steps", type=int, metavar="N", help="the most training steps of a method (default: the plan's)")
    add(
        "--patience",
        type=int,
        metavar="V",
        help="end a training after V validations without a better score (default: the plan's)",
    )
    add("--seeds", type=_numbers, metavar="S,...", help="seeds of the trainings (default: the plan's)")
    add("--tasks", type=int, metavar="N", help="test tasks (default: the plan's)")
    add("--root", metavar="DIR", help="folder of the features (default: the plan's)")
    add("--out", type=Path, metavar="DIR", help="folder of everything that is written (default: the plan's)")
    add("--reference", metavar="LABEL", help="method that the others are compared with (default: the plan's)")
    add(
        "--only",
        action="append",
        metavar="LABEL",
        help="train and evaluate only this method (repeat it for several); the table keeps what is known of "
        "the others",
    )
    add("--no-plot", action="store_true", help="leave the figure out")
    add_flags(parser, "trainings")
    return parser
