"""`python -m leo_lightning images`: divide your images, or import or download those of few-shot data sets.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.division import add_division, print_division
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError, check_least, without_controls
from leo_lightning.common.program import called, program

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
        description="Make folders of images, {train,val,test}/CLASS/IMAGE, from yours or few-shot data sets.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dividing = commands.add_parser(
        "divide",
        help="divide a folder of class folders into train, val and test",
        description="Divide DIR/CLASS/IMAGE into DST/{train,val,test}/CLASS/IMAGE by class, at random. The "
        "files in DST are hard links: they take no room, and stay when DST is moved or DIR is deleted.",
    )
    dividing.set_defaults(run=_divide)
    dividing.add_argument("dir", type=Path, metavar="DIR", help="folder with a folder per class")
    add_division(dividing)
    dividing.add_argument("--copy", action="store_true", help="copy the files, as to another disk")
    dividing.add_argument(
        "--class-depth",
        type=int,
        choices=(1, 2),
        metavar="1|2",
        help="2: the classes are the inner folders of DIR/GROUP/CLASS/IMAGE, as in Omniglot (default: 1)",
    )

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

    for command in (dividing, importing, download):
        command.add_argument("dst", type=Path, metavar="DST", help="folder for the images, not there yet")
    for command in (importing, download):
        command.add_argument(
            "--turned",
            action="store_true",
            help="add training classes: images turned by 90, 180 and 270 degrees; common for Omniglot",
        )

    info = commands.add_parser("info", help="show the splits of a folder of images, or its classes")
    info.set_defaults(run=_info)
    info.add_argument(
        "dir", type=Path, metavar="DIR", help="folder with a folder or a table per split, or per class"
    )
    return parser


def _divide(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from leo_lightning.data.division import divide
    from leo_lightning.images.division import check_outside, find_undivided, write_divided

    root, dst = arguments.dir, arguments.dst
    report = partial(print, "note:", file=sys.stderr)
    check_least(1, {"--min-images": arguments.min_images})
    check_outside(root, dst)
    images = find_undivided(root, arguments.class_depth, report)
    counts = dict(zip(images.class_names, images.counts.tolist(), strict=True))
    division = divide(counts, arguments.val, arguments.test, arguments.seed, arguments.min_images, str(root))
    total = sum(counts[name] for names in division.splits.values() for name in names)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("copying" if arguments.copy else "linking", total=total)
        splits = write_divided(images, division.splits, dst, arguments.copy, partial(progress.advance, task))
    _print_splits({split: found.counts.tolist() for split, found in splits.items()}, dst)
    print_division(division, counts, arguments.min_images)
    print(
        f"next: {program()} features extract --images {shlex.quote(str(dst))} --out "
        f"{shlex.quote(f'{dst}-features')} --backbone resnet18 --weights pretrained"
    )


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
    from leo_lightning.images.division import find_undivided, is_undivided
    from leo_lightning.images.folder import find_splits, skip_files

    report = partial(print, "note:", file=sys.stderr)
    if is_undivided(arguments.dir):
        images = find_undivided(arguments.dir, 1, report)
        print(f"{images.folder}: {_sizes(images.counts.tolist())}, not divided into train, val and test")
        for word, row in (("smallest", images.counts.argmin()), ("largest", images.counts.argmax())):
            print(f"{word} class: {without_controls(images.class_names[row])}, {images.counts[row]:,} images")
        print(f"divide it: {program()} images divide {shlex.quote(str(arguments.dir))} DST")
        return
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
            paths = [root / f"{name}{ending}" for name in names for ending in (".csv", "", ".json")]
            where = next(path for path in paths if path.exists())
            print(f"{where}: {_sizes(sizes)}")
        else:
            print(f"note: {root}: has no {split} split")


def _sizes(sizes: list[int]) -> str:
    return f"{len(sizes):,} classes, {sum(sizes):,} images, {min(sizes)} to {max(sizes)} per class"
