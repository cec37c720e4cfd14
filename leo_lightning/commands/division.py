"""The flags of `images divide` and `features divide`, and the lines that both print."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from leo_lightning.common.errors import without_controls

if TYPE_CHECKING:
    from leo_lightning.data.division import Division

_WAY, _IMAGES = 5, 16  # a 5-way 1-shot task with 15 queries


def add_division(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    for split, verb in (("val", "validate"), ("test", "test")):
        parser.add_argument(
            f"--{split}",
            default="20%",
            metavar="SIZE|NAMES",
            help=f"classes to {verb} on: a share (20%% or 0.2), a number (5; 0 for none), names or groups, "
            "separated by commas; the group of Greek/alpha is Greek (default: 20%%)",
        )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another division (default: 0)")
    parser.add_argument(
        "--min-images", type=int, default=1, metavar="N", help="leave out classes with fewer images"
    )


def print_division(division: "Division", counts: Mapping[str, int], least: int) -> None:
    """Name the held-out classes and those that were left out, and say which tasks do not fit."""
    for split in ("val", "test"):
        if names := division.splits.get(split):
            print(f"{split}: {', '.join(map(without_controls, names))}")
    if division.small:
        names = ", ".join(f"{without_controls(name)} ({counts[name]})" for name in division.small)
        print(f"note: left out, fewer than {least} images: {names}")
    way = min(map(len, division.splits.values()))
    if way < _WAY:
        print(f"note: the smallest split has {way} classes; train with --data.way {max(2, way)}")
    kept = {name: counts[name] for names in division.splits.values() for name in names}
    smallest = min(sorted(kept), key=lambda name: kept[name])
    if kept[smallest] < _IMAGES:
        print(
            f"note: the smallest class, {without_controls(smallest)}, has {kept[smallest]} images of the "
            f"{_IMAGES} for 1-shot tasks with 15 queries; lower --data.query, or leave such classes out: "
            f"--min-images {_IMAGES}"
        )
