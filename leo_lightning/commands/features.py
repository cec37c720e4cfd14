"""`features`: extract, import, divide, inspect, synthesize or download features.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.division import add_division, print_division
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.program import called, program
from leo_lightning.images.extraction.flags import add_arguments, run

if TYPE_CHECKING:
    from rich.console import Console

    from leo_lightning.data.bank import FeatureBank

AUTHORS_URL = "https://storage.googleapis.com/leo-embeddings/embeddings.zip"
_AUTHORS_BACKBONE = "WRN-28-10"  # the paper, Section 5.1; claimed for the authors' own archive only


def main(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name."""
    typed = _parser().parse_args(arguments)
    typed.run(typed)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} features",
        description="Make, inspect or download the feature files that training reads: "
        "{train,val,test}.safetensors in one folder.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "extract",
        help="make features of images with a backbone",
        description="Make features of images with a backbone. Settings that are not given come from the file "
        "of weights; for published weights, from their publisher. The same command continues one that ended.",
    )
    command.set_defaults(run=_extract)
    add_arguments(command)

    command = commands.add_parser("import", help="turn features in another format into feature files")
    command.set_defaults(run=_import)
    command.add_argument(
        "src", type=Path, metavar="SRC", help="the LEO authors' archive, or npz, npy or torch files"
    )
    command.add_argument("dst", type=Path, metavar="DST", help="folder for the feature files")
    command.add_argument("--dataset", help="data set to take from the archive, or its name for the record")
    command.add_argument("--crop", help="crop to take from the archive (center, multiview), or its name")
    command.add_argument(
        "--backbone", default="unknown", help="network that made the features, for the record"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the feature files in DST")
    command.add_argument(
        "--separate-labels",
        action="store_true",
        help="equal labels in two splits are different classes, as where each split counts from 0",
    )

    command = commands.add_parser(
        "divide",
        help="divide one file of features into train, val and test",
        description="Divide the classes of one file into DST/{train,val,test}.safetensors, at random.",
    )
    command.set_defaults(run=_divide)
    command.add_argument(
        "src", type=Path, metavar="SRC", help="npz, npy, torch or feature file, with labels; see `import`"
    )
    command.add_argument("dst", type=Path, metavar="DST", help="folder for the feature files")
    add_division(command)

    command = commands.add_parser(
        "info", help="show the content of a folder of feature files, or of one file"
    )
    command.set_defaults(run=_info)
    command.add_argument("dst", type=Path, metavar="DST", help="folder or file")

    command = commands.add_parser("synthesize", help="make features that need no download")
    command.set_defaults(run=_synthesize)
    command.add_argument("dst", type=Path, metavar="DST", help="folder for the feature files")
    command.add_argument("--seed", type=int, default=0, help="another seed, other features (default: 0)")

    command = commands.add_parser("download", help="download the LEO authors' features and import them")
    command.set_defaults(run=_download)
    command.add_argument("dst", type=Path, metavar="DST", help="folder for the archive and the feature files")
    command.add_argument("--url", default=AUTHORS_URL, help="address of the archive (default: %(default)s)")
    command.add_argument("--dataset", default="miniImageNet", help="miniImageNet (default) or tieredImageNet")
    command.add_argument("--crop", default="center", help="center (default) or, for miniImageNet, multiview")
    command.add_argument(
        "--keep-archive", action="store_true", help="keep DST/embeddings.zip, to import more from it"
    )
    return parser


def _extract(arguments: argparse.Namespace) -> None:
    console = _console()
    _print_written(console, run(arguments, console))


def _import(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.importers.importer import import_features

    console = _console()
    with console.status("importing ..."):
        banks = import_features(
            arguments.src,
            arguments.dst,
            dataset=arguments.dataset,
            crop=arguments.crop,
            backbone=arguments.backbone,
            overwrite=arguments.overwrite,
            separate_labels=arguments.separate_labels,
            report=lambda remark: _print_line(console, f"note: {remark}"),
        )
    _print_written(console, banks)


def _divide(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.splits import SPLITS
    from leo_lightning.data.undivided import divide_features, read_undivided

    check_least(1, {"--min-images": arguments.min_images})
    console, src, dst = _console(), arguments.src, arguments.dst
    with console.status("dividing ..."):
        bank = read_undivided(src, lambda remark: _print_line(console, f"note: {remark}"))
        asked = (arguments.val, arguments.test, arguments.seed, arguments.min_images)
        division, banks = divide_features(bank, dst, *asked)
    _print_written(console, banks)
    for split in SPLITS:
        if split not in banks:
            _print_line(console, f"note: {dst}: has no {split} split")
    counts = dict(zip(bank.class_names, bank.counts.tolist(), strict=True))
    print_division(division, counts, arguments.min_images)
    _print_line(console, f"next: {program()} fit_test --data.root {shlex.quote(str(dst))}")


def _info(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.feature_file import load_bank
    from leo_lightning.data.splits import load_splits

    dst: Path = arguments.dst
    _print_info(_console(), {dst.stem: load_bank(dst)} if dst.is_file() else load_splits(dst))


def _synthesize(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.splits import save_splits
    from leo_lightning.data.synthetic import synthesize

    check_least(0, {"--seed": arguments.seed})
    _print_written(_console(), save_splits(synthesize(arguments.seed).items(), arguments.dst))


def _download(arguments: argparse.Namespace) -> None:
    from leo_lightning.common.download import download
    from leo_lightning.data.splits import check_vacant

    dst: Path = arguments.dst
    check_vacant(dst)
    archive = dst / "embeddings.zip"
    try:
        download(arguments.url, archive, fault=_fault)
    except InputError:
        with suppress(OSError):  # not empty
            dst.rmdir()
        raise
    arguments.src, arguments.overwrite, arguments.separate_labels = archive, False, False
    arguments.backbone = _AUTHORS_BACKBONE if arguments.url == AUTHORS_URL else "unknown"
    _import(arguments)
    if not arguments.keep_archive:
        archive.unlink()


def _fault(archive: Path) -> str | None:
    """Return why a file cannot be imported."""
    return None if zipfile.is_zipfile(archive) else "it is not a whole zip archive"


def _console() -> "Console":
    """Return the console; a pipe or file has no width, and gets one at which nothing is folded."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def _print_line(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_written(console: "Console", banks: "Mapping[str, FeatureBank]") -> None:
    for bank in banks.values():
        _print_line(console, f"{bank.source}: {bank.summary}, {bank.embeddings.dtype}")


def _print_info(console: "Console", banks: "Mapping[str, FeatureBank]") -> None:
    """Print one column per split, then where the splits come from."""
    from rich.table import Table

    table = Table("", *banks)
    columns = [_described(bank) for bank in banks.values()]
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    console.print(table)
    for key in dict.fromkeys(key for bank in banks.values() for key in bank.provenance):
        values = {split: bank.provenance.get(key, "unknown") for split, bank in banks.items()}
        if len(set(values.values())) == 1:
            _print_line(console, f"{key}: {next(iter(values.values()))}")
        else:
            for split, value in values.items():
                _print_line(console, f"{key} ({split}): {value}")


def _described(bank: "FeatureBank") -> dict[str, str]:
    import torch

    # In float64, because the squares of ordinary features overflow float16; in chunks, because the bank may
    # exceed memory.
    rows = max(1, 2**22 // bank.embedding_size)
    norms = torch.cat([chunk.double().norm(dim=1) for chunk in bank.embeddings.split(rows)])
    return {
        "classes": str(bank.num_classes),
        "images": str(len(bank)),
        "images per class": f"{bank.counts.min()} to {bank.counts.max()}",
        "E": str(bank.embedding_size),
        "dtype": str(bank.embeddings.dtype).removeprefix("torch."),
        "file size": f"{Path(bank.source).stat().st_size / 1e6:,.1f} MB",
        "L2 norm": f"{norms.mean():.4g} ({norms.min():.4g} to {norms.max():.4g})",
        "finite": "yes" if norms.isfinite().all() else "no",
        "image names": "yes" if bank.image_names is not None else "no",
    }
