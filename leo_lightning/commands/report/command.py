"""`python -m leo_lightning report`: an HTML page about one run, or about several side by side.

Slow modules are imported inside the functions, so that `--help` answers at once.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError
from leo_lightning.common.files import check_place, whole_file
from leo_lightning.common.program import called


def main(argv: Sequence[str]) -> None:
    """Write a report."""
    parser = ArgumentParser(
        prog=f"{called()} report",
        description="Write one HTML page about a run, finished or not, or about several side by side: "
        "results, curves, pictures, settings. The page is one file and needs no network.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN_DIR", help="run folder, like runs/leo/DATE_TIME"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="file of the page (default: report.html in the run folder, or in the one that all runs are in)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    out: Path = arguments.out or _shared(arguments.runs) / "report.html"

    from leo_lightning.commands.report.page import is_report, render
    from leo_lightning.commands.report.run_folder import read_runs

    runs = read_runs(arguments.runs)
    check_place(out)
    if out.exists() and not is_report(out):
        raise InputError(f"{out}: exists and is not a report; name another file with --out")
    html = render(runs)
    with whole_file(out) as part:
        part.write_text(html, encoding="utf-8")
    for run in runs:
        print(f"run     {run.folder}: {run.state.sentence}")
    print(f"report  {out}, {len(html.encode()) / 1e6:.1f} MB")


def _shared(folders: Sequence[Path]) -> Path:
    """The folder, or the deepest folder that all of them are in, relative if the first one is."""
    if len(folders) == 1:
        return folders[0]
    shared = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    return shared if folders[0].is_absolute() else Path(os.path.relpath(shared))
