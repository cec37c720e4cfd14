"""`python -m leo_lightning images`: import or download the images of few-shot data sets.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError
from leo_lightning.common.program import called

if TYPE_CHECKING:
    from types import ModuleType

    from leo_lightning.images.sources.picture import Pictures

DATASETS = ("omniglot", "cifar-fs", "fc100", "mini-imagenet", "tiered-imagenet")
"""Modules of `sources`, with - in place of _."""


def main(argv: Sequence[str]) -> None:
    """Run the command that is typed after `images`."""
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} images",
        description="Make folders of images, {train,val,test}/CLASS/IMAGE.png, from few-shot data sets.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    importing = commands.add_parser("import", help="import arrays, or the files of a published data set")
    importing.set_defaults(run=_import)
    importing.add_argument(
        "src",
        type=Path,
        metavar="SRC",
        help="npz file of images, labels and names; with --dataset: the published file, or folder of files",
    )
    importing.add_argument("--dataset", choices=DATASETS, help="the data set that SRC holds")
    for split, verb in (("val", "validate"), ("test", "test")):
        importing.add_argument(
            f"--{split}",
            action="append",
            default=[],
            metavar="NAMES",
            help=f"classes to {verb} on: names, or their parts before the first /, separated by commas",
        )

    download = commands.add_parser("download", help="download a data set and divide it as its authors do")
    download.set_defaults(run=_download)
    download.add_argument("dataset", choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    download.add_argument("--url", help="address of a mirror, in place of the data set's own server")
    download.add_argument("--keep-archive", action="store_true", help="keep the download, in DST.download")

    for command in (importing, download):
        command.add_argument("dst", type=Path, metavar="DST", help="folder for the images, not there yet")
        command.add_argument(
            "--turned",
            action="store_true",
            help="add training classes: images turned by 90, 180 and 270 degrees; common for Omniglot",
        )

    info = commands.add_parser("info", help="show the splits of a folder of images")
    info.set_defaults(run=_info)
    info.add_argument("dir", type=Path, metavar="DIR", help="folder with a folder or a table per split")
    return parser


def _import(arguments: argparse.Namespace) -> None:
    from leo_lightning.images.sources.npz import read_npz
    from leo_lightning.images.sources.published import locate
    from leo_lightning.images.sources.tree import check_vacant

    check_vacant(arguments.dst)
    if arguments.dataset is None:
        pictures = read_npz(arguments.src, arguments.val, arguments.test)
    elif arguments.val or arguments.test:
        raise InputError(f"--val and --test: {arguments.dataset} has its authors' splits; leave them out")
    else:
        dataset = _module(arguments.dataset)
        pictures = dataset.read(locate(dataset.FILES, arguments.src))
    _write(pictures, arguments.dst, arguments.turned)


def _download(arguments: argparse.Namespace) -> None:
    from leo_lightning.common.file_lock import file_lock
    from leo_lightning.images.sources.published import fetch
    from leo_lightning.images.sources.tree import check_vacant

    dst: Path = arguments.dst
    check_vacant(dst)
    dataset = _module(arguments.dataset)
    home: str = arguments.url or dataset.HOME
    folder = dst.with_name(f"{dst.name}.download")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(folder / ".lock", f"{dst}: another process downloads it; wait for its end"):
            paths = fetch(dataset.FILES, home.rstrip("/"), folder)
            _write(dataset.read(paths), dst, arguments.turned)
            if not arguments.keep_archive:
                for path in paths:
                    path.unlink()
    finally:
        with suppress(OSError):  # not empty
            folder.rmdir()


def _info(arguments: argparse.Namespace) -> None:
    from leo_lightning.images.folder import find_splits, skip_files

    report = partial(print, "note:", file=sys.stderr)
    splits = find_splits(arguments.dir, partial(skip_files, report=report))
    _print_splits({split: images.counts.tolist() for split, images in splits.items()}, arguments.dir)


def _module(dataset: str) -> "ModuleType":
    return importlib.import_module(f"leo_lightning.images.sources.{dataset.replace('-', '_')}")


def _write(pictures: "Pictures", dst: Path, rotate: bool) -> None:
    """Write the images, with rotated training classes if asked, and print one line per split."""
    from rich.console import Console
    from rich.progress import Progress

    from leo_lightning.images.sources.tree import write_tree
    from leo_lightning.images.sources.turned import turned

    total, images = (None, turned(pictures.pictures)) if rotate else pictures
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        counts = write_tree(progress.track(images, total=total, description=f"writing {dst.name}"), dst)
    _print_splits({split: list(sizes.values()) for split, sizes in counts.items()}, dst)


def _print_splits(counts: dict[str, list[int]], root: Path) -> None:
    """Print a line per split: its folder or table, and the number of classes and images."""
    from leo_lightning.data.splits import SPLIT_NAMES

    for split, names in SPLIT_NAMES.items():
        if sizes := counts.get(split):
            per_class = f"{min(sizes)} to {max(sizes)} per class"
            paths = [root / f"{name}{ending}" for name in names for ending in (".csv", "")]
            where = next(path for path in paths if path.exists())
            print(f"{where}: {len(sizes):,} classes, {sum(sizes):,} images, {per_class}")
        else:
            print(f"note: {root}: has no {split} split")
