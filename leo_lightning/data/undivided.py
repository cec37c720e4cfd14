"""One file of features of all classes → feature files of train, val and test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import checksum_of
from leo_lightning.data.bank import UNKNOWN, FeatureBank
from leo_lightning.data.division import Division, divide
from leo_lightning.data.new_classes import read_images, support_of
from leo_lightning.data.splits import check_vacant, save_splits

DIVIDER = "leo-lightning divider 1"


def read_undivided(src: Path, report: Callable[[str], None] = print) -> FeatureBank:
    """Read all classes of a feature file, or a file such as the importers read; remarks go to `report`.

    Raises:
        InputError: it is missing, of another kind, damaged, or has no labels.
    """
    if src.is_dir():
        raise InputError(f"{src}: is a folder; name one file of features (`features import` reads folders)")
    bank = support_of(read_images(src, True, report), report)
    if bank.provenance:
        return bank
    with src.open("rb") as stream:
        checksum = checksum_of(stream)
    record = {"dataset": UNKNOWN, "split": "", "crop": UNKNOWN, "backbone": UNKNOWN}
    return replace(bank, provenance={**record, "source": src.name, "source_sha256": checksum})


def divide_features(
    bank: FeatureBank, dst: Path, val: str, test: str, seed: int, least: int
) -> tuple[Division, dict[str, FeatureBank]]:
    """Divide the classes of a bank, and write a feature file for each split: all, or nothing.

    Args:
        bank: all classes.
        dst: folder for the feature files.
        val: classes that validate; see `divide`.
        test: classes that test.
        seed: another seed, another division.
        least: classes with fewer images are left out.

    Returns:
        The division, and the splits, read back from their files.

    Raises:
        InputError: the classes cannot be divided like this, or `dst` holds features already.
    """
    check_vacant(dst)
    counts = dict(zip(bank.class_names, bank.counts.tolist(), strict=True))
    division = divide(counts, val, test, seed, least, bank.source)
    record = {"divider": DIVIDER, "division": f"--val {val} --test {test} --seed {seed} --min-images {least}"}
    banks = (
        (split, replace(part, provenance=bank.provenance | record | {"split": split}))
        for split, names in division.splits.items()
        for part in [bank.only(set(names))]
    )
    return division, save_splits(banks, dst)
