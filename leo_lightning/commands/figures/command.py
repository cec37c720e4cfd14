"""`python -m leo_lightning figures`: draw what a trained learner does.

What takes long to import is imported inside the functions, so that `--help` answers at once. A figure is a
module of this package: its first line is its help, `add_arguments` has its options, and `draw` makes of a
`Subject` and these options a figure of matplotlib and the rows of its CSV, names of columns first.
"""

import argparse
import csv
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.figure_style import figure_style, save_figure
from leo_lightning.common.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("regression", "latents", "curvature", "adaptation", "episode")
"""Modules of this package."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    return exit_code(lambda: _draw(_parser().parse_args(argv)), "interrupted; nothing was written")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning figures",
        description="Draw what a trained learner does. Writes NAME.png, NAME.svg and NAME.csv, the numbers "
        "behind them.",
    )
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for name in FIGURES:
        module = importlib.import_module(f"leo_lightning.commands.figures.{name}")
        line = str(module.__doc__).partition("\n")[0]
        figure = names.add_parser(name, help=line, description=line)
        add = figure.add_argument
        add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint in its run folder")
        add("--out", type=Path, required=True, metavar="DIR", help="where the files go")
        add("--data.root", dest="root", metavar="DIR", help="folder of features, in place of the run's")
        module.add_arguments(figure)
    return parser


def _draw(arguments: argparse.Namespace) -> None:
    start, out = time.monotonic(), arguments.out
    check_least(1, {"--tasks": getattr(arguments, "tasks", None)})
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise _cannot_write(out, NotADirectoryError(20, "Not a directory"))
    from leo_lightning.commands.figures.subject import Subject
    from leo_lightning.common.quiet import quiet

    quiet()
    subject = Subject.load(arguments.ckpt_path, arguments.root)
    print(f"{arguments.name:11} {subject.title()}")
    with figure_style():
        module = importlib.import_module(f"leo_lightning.commands.figures.{arguments.name}")
        figure, rows = module.draw(subject, **_options(arguments))
        _write(figure, rows, out, arguments.name)
    print(f"{'time':11} {time.monotonic() - start:.0f} s")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of the figure itself."""
    common = ("name", "ckpt_path", "out", "root")
    return {name: value for name, value in vars(arguments).items() if name not in common}


def _write(figure: "Figure", rows: Sequence[Sequence[object]], out: Path, name: str) -> None:
    """Write the three files, each of them whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(out, error) from None
    paths = {kind: out / f"{name}.{kind}" for kind in ("csv", "png", "svg")}
    for kind, path in paths.items():
        with whole_file(path) as part:
            if kind == "csv":
                with part.open("w", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerows(map(_rounded, rows))
            else:
                save_figure(figure, part, kind)
        print(f"{kind:11} {path}")


def _rounded(row: Sequence[object]) -> list[object]:
    """Numbers to five digits: more are noise, and fill the disk."""
    return [f"{value:.5g}" if isinstance(value, float) else value for value in row]


def _cannot_write(out: Path, error: OSError) -> InputError:
    return InputError(f"{out}: cannot be written ({error.strerror}); name another folder with --out")
