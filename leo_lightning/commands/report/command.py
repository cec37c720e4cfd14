"""`python -m leo_lightning report`: one HTML page about one run, or about several side by side.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError
from leo_lightning.common.files import check_place, whole_file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    return exit_code(lambda: _report(_parser().parse_args(argv)), "interrupted; nothing was written")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning report",
        description="Write one HTML page about a run, finished or not, or about several side by side: "
        "results, curves, pictures, settings. The page needs no network, and nothing beside it.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN_DIR", help="run folder, like runs/leo/DATE_TIME"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="where the page goes (default: report.html in the run folder, or in the one that runs share)",
    )  # fmt: skip
    return parser


def _report(arguments: argparse.Namespace) -> None:
    folders: list[Path] = arguments.runs
    out = arguments.out or _shared(folders) / "report.html"
    from leo_lightning.commands.report.page import is_report, render
    from leo_lightning.commands.report.run_folder import read_runs

    runs = read_runs(folders)
    check_place(out)
    if out.exists() and not is_report(out):
        raise InputError(f"{out}: is there and no report of this command; name another file with --out")
    html = render(runs, time.time())
    with whole_file(out) as part:
        part.write_text(html, encoding="utf-8")
    for run in runs:
        print(f"run     {run.folder}: {run.state.sentence}")
    print(f"report  {out}, {len(html.encode()) / 1e6:.1f} MB")


def _shared(folders: Sequence[Path]) -> Path:
    """The folder itself, or the deepest one that all of them are in, written as the first one is."""
    if len(folders) == 1:
        return folders[0]
    shared = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    return shared if folders[0].is_absolute() else Path(os.path.relpath(shared))
