"""`python -m leo_lightning features`: extract, import, inspect, synthesize or download features.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError, check_least
from leo_lightning.images.extraction.flags import add_arguments, run

if TYPE_CHECKING:
    from rich.console import Console

    from leo_lightning.data.bank import FeatureBank

AUTHORS_URL = "http://storage.googleapis.com/leo-embeddings/embeddings.zip"
_AUTHORS_BACKBONE = "WRN-28-10"  # the paper, Section 5.1; claimed for the authors' own archive only


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
        prog="python -m leo_lightning features",
        description="Make, inspect or download the feature files that training reads: "
        "{train,val,test}.safetensors in one folder.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "extract",
        help="make features of images with a backbone",
        description="Make features of images with a backbone. What is not given is as the weights' file "
        "says; for published weights, as their publisher prepares images. Stopped, the same command goes on.",
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

    command = commands.add_parser("info", help="show what is in a folder of feature files, or in one file")
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
    _print_written(console, run(arguments, console).items())


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
            report=_reporter(console),
        )
    _print_written(console, banks.items())


def _info(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.feature_file import load_bank
    from leo_lightning.data.splits import load_split, present_splits

    if arguments.dst.is_file():
        banks = {arguments.dst.stem: load_bank(arguments.dst)}
    else:  # of an empty folder, load_split says what to do
        banks = {
            split: load_split(arguments.dst, split) for split in present_splits(arguments.dst) or ["train"]
        }
    _print_info(_console(), banks)


def _synthesize(arguments: argparse.Namespace) -> None:
    from leo_lightning.data.splits import check_vacant, save_splits
    from leo_lightning.data.synthetic import synthesize

    check_least(0, {"--seed": arguments.seed})
    check_vacant(arguments.dst)
    console = _console()
    with console.status("synthesizing ..."):
        banks = save_splits(synthesize(arguments.seed).items(), arguments.dst)
    _print_written(console, banks.items())


def _download(arguments: argparse.Namespace) -> None:
    from leo_lightning.common.download import download
    from leo_lightning.data.importers.importer import import_features
    from leo_lightning.data.splits import check_vacant

    dst: Path = arguments.dst
    check_vacant(dst)
    console = _console()
    archive = dst / "embeddings.zip"
    try:
        download(arguments.url, archive)
    except InputError:
        with suppress(OSError):  # leave no folder behind that holds nothing
            dst.rmdir()
        raise
    console.print(
        f"{archive}: {archive.stat().st_size:,} bytes", markup=False, highlight=False, soft_wrap=True
    )
    with console.status("importing ..."):
        banks = import_features(
            archive,
            dst,
            dataset=arguments.dataset,
            crop=arguments.crop,
            backbone=_AUTHORS_BACKBONE if arguments.url == AUTHORS_URL else "unknown",
            report=_reporter(console),
        )
    if not arguments.keep_archive:
        archive.unlink()
    _print_written(console, banks.items())


def _console() -> "Console":
    """Return the console; a pipe or file has no width, and gets one at which nothing is folded."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def _reporter(console: "Console") -> Callable[[str], None]:
    def report(remark: str) -> None:
        console.print(f"note: {remark}", markup=False, highlight=False, soft_wrap=True)

    return report


def _print_written(console: "Console", banks: "Iterable[tuple[str, FeatureBank]]") -> None:
    """Print one line per split that was written."""
    from rich.table import Table

    table = Table("split", "classes", "images", "E", "dtype")
    table.add_column("where", overflow="fold")
    for split, bank in banks:
        table.add_row(
            split, str(bank.num_classes), str(len(bank)), str(bank.embedding_size), _dtype(bank), bank.source
        )
    console.print(table)


def _print_info(console: "Console", banks: "dict[str, FeatureBank]") -> None:
    """Print one column per split, then where each split comes from."""
    from rich.table import Table

    table = Table("", *banks)
    described = [_described(bank) for bank in banks.values()]
    for what in described[0]:
        table.add_row(what, *(description[what] for description in described))
    console.print(table)
    for line in _provenance_lines(banks):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _provenance_lines(banks: "dict[str, FeatureBank]") -> list[str]:
    """Return one line for what all splits share, and one per split for what differs."""
    lines = []
    for key in dict.fromkeys(key for bank in banks.values() for key in bank.provenance):
        values = {split: bank.provenance.get(key, "unknown") for split, bank in banks.items()}
        if len(set(values.values())) == 1:
            lines.append(f"{key}: {next(iter(values.values()))}")
        else:
            lines += [f"{key} ({split}): {value}" for split, value in values.items()]
    return lines


def _described(bank: "FeatureBank") -> dict[str, str]:
    counts = bank.counts
    mean, low, high, finite = _norms(bank)
    return {
        "classes": str(bank.num_classes),
        "images": str(len(bank)),
        "images per class": f"{counts.min()} to {counts.max()}",
        "E": str(bank.embedding_size),
        "dtype": _dtype(bank),
        "file size": f"{Path(bank.source).stat().st_size / 1e6:,.1f} MB",
        "L2 norm": f"{mean:.4g} ({low:.4g} to {high:.4g})",
        "finite": "yes" if finite else "no",
        "image names": "yes" if bank.image_names is not None else "no",
    }


def _norms(bank: "FeatureBank") -> tuple[float, float, float, bool]:
    """Return the mean, least and greatest L2 norm of the embeddings, and whether all of them are finite."""
    import torch

    # In float64, because the squares of ordinary features overflow float16; in chunks, because the bank may
    # exceed memory.
    rows = max(1, 2**22 // bank.embedding_size)
    norms = torch.cat([chunk.double().norm(dim=1) for chunk in bank.embeddings.split(rows)])
    return norms.mean().item(), norms.min().item(), norms.max().item(), bool(norms.isfinite().all())


def _dtype(bank: "FeatureBank") -> str:
    return str(bank.embeddings.dtype).removeprefix("torch.")
