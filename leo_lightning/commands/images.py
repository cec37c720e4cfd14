"""`python -m leo_lightning.images`: import or download the images of few-shot data sets.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

    from leo_lightning.images.sources.picture import Pictures

DATASETS = ("omniglot", "cifar-fs", "fc100", "mini-imagenet", "tiered-imagenet")
"""Modules of `sources`, which write _ for -."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    return exit_code(lambda: _run(_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> None:
    arguments.run(arguments)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning.images",
        description="Make folders of images, {train,val,test}/CLASS/IMAGE.png, out of few-shot data sets.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("import", help="turn arrays, or a data set's own files, into such folders")
    command.set_defaults(run=_import)
    command.add_argument(
        "src",
        type=Path,
        metavar="SRC",
        help="npz file of images, labels and names; with --dataset: the file, or folder of files, that it is "
        "published as",
    )
    command.add_argument(
        "dst", type=Path, metavar="DST", help="folder for the images, which is not there yet"
    )
    command.add_argument("--dataset", choices=DATASETS, help="what SRC is, if it is no npz file")
    for split, what in (("val", "validate"), ("test", "test")):
        command.add_argument(
            f"--{split}",
            action="append",
            default=[],
            metavar="NAMES",
            help=f"classes of an npz file to {what} on: names, or what stands before their first /, with "
            "commas between; the rest trains",
        )
    _add_turned(command)

    command = commands.add_parser("download", help="download a data set and divide it as its authors do")
    command.set_defaults(run=_download)
    command.add_argument("dataset", choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    command.add_argument(
        "dst", type=Path, metavar="DST", help="folder for the images, which is not there yet"
    )
    command.add_argument("--url", help="address of a mirror, in place of the server that the set is kept on")
    command.add_argument(
        "--keep-archive", action="store_true", help="keep what was downloaded, in DST.download"
    )
    _add_turned(command)

    command = commands.add_parser("info", help="show what is in a folder of images")
    command.set_defaults(run=_info)
    command.add_argument(
        "dir", type=Path, metavar="DIR", help="folder with splits as folders or as tables (train.csv, …)"
    )
    return parser


def _add_turned(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--turned",
        action="store_true",
        help="turn training classes by 90, 180 and 270 degrees, as three more classes; usual for Omniglot",
    )


def _import(arguments: argparse.Namespace) -> None:
    from leo_lightning.images.sources.npz import read_npz
    from leo_lightning.images.sources.published import locate
    from leo_lightning.images.sources.tree import check_vacant

    src: Path = arguments.src
    check_vacant(arguments.dst)
    if arguments.dataset is None:
        pictures = read_npz(src, arguments.val, arguments.test)
    elif arguments.val or arguments.test:
        raise InputError(
            f"--val and --test: {arguments.dataset} is divided as its authors do; leave them out"
        )
    else:
        dataset = _module(arguments.dataset)
        pictures = dataset.read(locate(dataset.files(), src))
    _write(pictures, arguments.dst, arguments.turned)


def _download(arguments: argparse.Namespace) -> None:
    from leo_lightning.images.sources.published import fetch
    from leo_lightning.images.sources.tree import check_vacant

    dst: Path = arguments.dst
    check_vacant(dst)
    dataset = _module(arguments.dataset)
    home: str = arguments.url or dataset.HOME
    folder = dst.with_name(f"{dst.name}.download")
    try:
        paths = fetch(dataset.files(), home.rstrip("/"), folder)
        _write(dataset.read(paths), dst, arguments.turned)
        if not arguments.keep_archive:
            for path in paths:
                path.unlink()
    finally:
        with suppress(OSError):  # leave no folder behind that holds nothing
            folder.rmdir()


def _info(arguments: argparse.Namespace) -> None:
    from leo_lightning.images.folder import find_splits

    splits = find_splits(arguments.dir, "skip", lambda line: print(f"note: {line}", file=sys.stderr))
    tables = {split: arguments.dir / f"{split}.csv" for split in splits}
    where = {split: path for split, path in tables.items() if path.is_file()}
    _print_splits({split: images.counts.tolist() for split, images in splits.items()}, arguments.dir, where)


def _module(dataset: str) -> "ModuleType":
    return importlib.import_module(f"leo_lightning.images.sources.{dataset.replace('-', '_')}")


def _write(pictures: "Pictures", dst: Path, more: bool) -> None:
    """Write the images, and print one line per split.

    Args:
        pictures: the images.
        dst: where they go.
        more: turn the training classes as well.
    """
    from rich.console import Console
    from rich.progress import Progress

    from leo_lightning.images.sources.tree import write_tree
    from leo_lightning.images.sources.turned import turned

    pictures = turned(pictures) if more else pictures
    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal) as progress:
        counts = write_tree(
            progress.track(pictures.pictures, total=pictures.total, description=f"writing {dst.name}"), dst
        )
    _print_splits({split: list(sizes.values()) for split, sizes in counts.items()}, dst, {})


def _print_splits(counts: dict[str, list[int]], root: Path, tables: Mapping[str, Path]) -> None:
    """Print a line for each split: numbers of images of its classes, and its folder or table."""
    from rich.console import Console
    from rich.table import Table

    from leo_lightning.data.splits import SPLITS

    table = Table("split", "classes", "images", "images per class")
    table.add_column("where", overflow="fold")
    for split in (split for split in SPLITS if split in counts):
        sizes = counts[split]
        where = str(tables.get(split, root / split))
        table.add_row(split, str(len(sizes)), str(sum(sizes)), f"{min(sizes)} to {max(sizes)}", where)
    # a pipe or file has no width, and gets one at which nothing is folded
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    missing = [split for split in SPLITS if split not in counts]
    if missing:
        console.print(f"note: {root}: has no {' and no '.join(missing)} split", markup=False, soft_wrap=True)
