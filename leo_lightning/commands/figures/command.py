"""`python -m leo_lightning figures`: draw what a trained learner does.

A figure is a module of this package. Its `draw` takes a `Subject` and the figure's options; it returns a
matplotlib figure and the rows of its CSV, the column names first. Modules are imported when they are drawn,
so that `--help` answers at once.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.figure_style import figure_style, save_figure
from leo_lightning.common.files import whole_file
from leo_lightning.common.program import called
from leo_lightning.common.spreadsheet import csv_cell

FIGURES = {
    "regression": "functions sampled by LEO for sines and lines, two of them ambiguous (Figure 2)",
    "latents": "t-SNE of latent codes before and after adaptation (Figure 3)",
    "curvature": "curvature in z and θ, the decoder's expansion, and sizes of inner steps (Figure 4)",
    "adaptation": "accuracy and loss after each latent and each fine-tuning step",
    "episode": "one test task: its images, its latent codes, and the class probabilities of each query",
}
"""Modules of this package, and their lines of help; numbers of figures are the paper's."""


def main(argv: Sequence[str]) -> None:
    """Draw a figure."""
    start, options = time.monotonic(), vars(_parser().parse_args(argv))
    name, path, out, root = (options.pop(key) for key in ("name", "ckpt_path", "out", "root"))
    check_least(1, {f"--{option}": options.get(option) for option in ("tasks", "samples")})
    check_least(0, {"--task": options.get("task")})
    if any(folder.is_file() for folder in (out, *out.parents)):
        raise InputError(f"{out}: is not a folder; name another one with --out")
    import torch

    from leo_lightning.commands.figures.subject import Subject

    subject = Subject.load(path, root)
    print(f"{name:11} {subject.title()}")
    for line in subject.data.other_features("test"):
        print(f"{'note':11} {line}")
    with figure_style(), torch.inference_mode():
        figure, rows = import_module(f"leo_lightning.commands.figures.{name}").draw(subject, **options)
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / f"{name}.csv") as part, part.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(map(_rounded, rows))
        for kind in ("png", "svg"):
            save_figure(figure, out / f"{name}.{kind}")
    for kind in ("csv", "png", "svg"):
        print(f"{kind:11} {out / name}.{kind}")
    print(f"{'time':11} {time.monotonic() - start:.0f} s")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} figures",
        description="Draw what a trained learner does. Writes NAME.png, NAME.svg, and the numbers, NAME.csv.",
    )
    common = ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    add = common.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint in its run folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    add("--data.root", dest="root", default=None, metavar="DIR", help="folder of features, if not the run's")
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    # an option that is not given is left out, so that the default of `draw` applies
    options = {
        name: names.add_parser(
            name, help=line, description=line, parents=[common], argument_default=argparse.SUPPRESS
        ).add_argument
        for name, line in FIGURES.items()
    }
    for name, split, count in (
        ("regression", "test", 10000),
        ("latents", "validation", 1000),
        ("curvature", "test", 1000),
        ("adaptation", "test", 1000),
    ):
        options[name]("--tasks", type=int, metavar="N", help=f"number of {split} tasks (default: {count})")
    options["regression"](
        "--samples", type=int, metavar="N", help="functions sampled for a task (default: 50)"
    )
    options["latents"](
        "--class", dest="highlighted", metavar="NAME",
        help="class shown in a panel of its own (default: the one with most codes)",
    )  # fmt: skip
    options["curvature"](
        "--other", type=_labelled, action="append", metavar="LABEL=FILE",
        help="another checkpoint to compare with, of LEO or of a method such as MAML; may be repeated",
    )  # fmt: skip
    options["episode"]("--task", type=int, metavar="I", help="number of the test task (default: 0)")
    return parser


def _labelled(text: str) -> tuple[str, Path]:
    label, _, path = text.partition("=")
    if not (label and path):
        raise argparse.ArgumentTypeError(f"expected LABEL=FILE, got {text!r:.80}")
    return label, Path(path)


def _rounded(row: Sequence[object]) -> list[object]:
    """Numbers with five digits, because more would be noise, and names as text."""
    return [f"{value:.5g}" if isinstance(value, float) else csv_cell(value) for value in row]
