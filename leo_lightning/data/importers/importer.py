"""import_features: recognises a source by its content, reads it, and writes feature files."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from leo_lightning.common.errors import InputError
from leo_lightning.common.program import program
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.bank import UNKNOWN, FeatureBank
from leo_lightning.data.importers.arrays import folder_arrays
from leo_lightning.data.importers.authors import authors_sets, choose_set, split_keys
from leo_lightning.data.importers.sources import Source
from leo_lightning.data.splits import (
    ARRAY_ENDINGS,
    SPLITS,
    check_vacant,
    present_splits,
    save_splits,
    separated,
)

IMPORTER = "leo-lightning importer 1"

_LOOKED_FOR = (
    "looked for the LEO authors' archive or folder ({split}_embeddings.pkl), {split}.npz, {split}.npy with "
    "{split}_labels.npy, .txt or .csv, and {split}.pt, .pth, .pkl, .h5, .mat, .parquet, .csv or .tsv"
)


def import_features(
    src: Path,
    dst: Path,
    dataset: str | None = None,
    crop: str | None = None,
    backbone: str = UNKNOWN,
    overwrite: bool = False,
    separate_labels: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, FeatureBank]:
    """Read features in any known format and write them as feature files: all splits, or nothing.

    Embeddings are stored as they are; they are normalised when they are used.

    Args:
        src: the authors' archive, or a file or folder with one set of arrays per split.
        dst: folder for the feature files.
        dataset: the data set to take from several; otherwise its name, for the record.
        crop: the crop to take from several; otherwise its name, for the record.
        backbone: network that made the features, for the record.
        overwrite: replace the feature files in `dst`.
        separate_labels: equal labels in two splits are different classes, as where each counts from 0.
        report: called with each remark for the user.

    Returns:
        The banks by split, in the order train, val, test.

    Raises:
        InputError: the source is unknown, damaged or inconsistent, or `dst` holds features already.
    """
    check_vacant(dst, overwrite)
    dataset, crop, sources = _find(src, dataset, crop, report)
    present = [split for split in SPLITS if split in sources]
    missing = [split for split in SPLITS if split not in sources]
    if missing:
        report(f"{src}: has no {' and no '.join(missing)} split; importing {' and '.join(present)} only")

    def banks() -> Iterator[tuple[str, FeatureBank]]:
        for split in present:
            record = {"dataset": dataset, "split": split, "crop": crop, "backbone": backbone}
            bank = _read(sources[split], record, report)
            yield split, separated(bank, split) if separate_labels else bank

    return save_splits(banks(), dst, overwrite)


def _read(source: Source, record: dict[str, str], report: Callable[[str], None]) -> FeatureBank:
    embeddings, labels, image_names, sha256 = source.read()
    assert labels is not None
    if image_names is not None:
        labels, image_names, remark = split_keys(labels, image_names, source.where)
        if remark:
            report(remark)
    provenance = {**record, "source": source.name, "source_sha256": sha256, "importer": IMPORTER}
    bank = FeatureBank.from_arrays(embeddings, labels, image_names, provenance, source.where)
    if remark := bank.zero_rows():
        report(remark)
    return bank


def _find(
    src: Path, dataset: str | None, crop: str | None, report: Callable[[str], None]
) -> tuple[str, str, dict[str, Source]]:
    """Return data set, crop and splits of the one set of features in `src`."""
    if not src.exists():
        raise InputError(f"{src}: no such file or folder")
    if not src.is_dir() and (src.suffix == ".npz" or not zipfile.is_zipfile(src)):
        refuse_page(src, str(src))
        other = f", or divide its classes with `{program()} features divide {src} DST`"
        raise InputError(
            f"{src}: is neither a folder nor a zip archive; give the folder that holds it"
            + other * (src.suffix in (".safetensors", *ARRAY_ENDINGS))
        )
    sets, arrays = authors_sets(src), folder_arrays(src, report)
    if sets and arrays:
        names = ", ".join(source.name for source in arrays.values())
        raise InputError(f"{src}: holds pickles and {names}; leave one set of features in the folder")
    if sets:
        return choose_set(sets, src, dataset, crop)
    if arrays:
        return dataset or UNKNOWN, crop or UNKNOWN, arrays
    if ready := present_splits(src):
        raise InputError(f"{src}: already holds feature files ({', '.join(ready)}); use this folder as it is")
    raise InputError(f"{src}: no features found; {_LOOKED_FOR}")
