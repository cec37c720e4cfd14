"""Embeddings of new classes out of a user's files: a few labelled examples, and queries to classify."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank, check_lengths, stored_rows
from leo_lightning.data.feature_file import load_bank
from leo_lightning.data.importers.arrays import read_file
from leo_lightning.data.importers.authors import split_keys
from leo_lightning.data.labels import class_numbers

QUERIES = 1024
"""Queries to classify at once."""
PAIRS = 2**24
"""Comparisons of queries with support images at once: with a large support, fewer queries."""


class Images(NamedTuple):
    """The images of a file, in its order."""

    bank: FeatureBank
    """Their embeddings, as one class: a bank sorts its rows by class."""
    class_names: Sequence[str] = ()
    classes: Int64[np.ndarray, " n"] | None = None
    """Number of each image's class; None without labels."""
    unread: Mapping[int, tuple[str, str]] = MappingProxyType({})
    """Name of each image that could not be read, and the reason, by its place among all images."""


def read_images(path: Path, labelled: bool, report: Callable[[str], None] = print) -> Images:
    """Read embeddings.

    Args:
        path: a feature file, or a file such as the importers read.
        labelled: whether labels are required; otherwise they are optional.
        report: called with each remark for the user.

    Raises:
        InputError: the file is missing, of another kind, damaged or inconsistent.
    """
    if path.suffix == ".safetensors" and path.is_file():
        bank = load_bank(path)
        bank.check_finite()
        return Images(bank, bank.class_names, bank.labels.numpy())
    embeddings, labels, image_names, _ = read_file(path, labelled, report)
    check_lengths(embeddings, labels, image_names, str(path))
    if labels is not None and image_names is not None:
        labels, image_names, _ = split_keys(labels, image_names, str(path))
    bank = FeatureBank(
        stored_rows(embeddings, str(path)),
        torch.zeros(len(embeddings), dtype=torch.int64),  # one class for all, so that no row moves
        ("unknown",),
        None if image_names is None else tuple(image_names),
        provenance={},
        source=str(path),
    )
    bank.check_finite()
    return Images(bank) if labels is None else Images(bank, *class_numbers(labels, str(path)))


def support_of(images: Images, report: Callable[[str], None] = print) -> FeatureBank:
    """Sort labelled images by class; `report` is called with a remark on rows of zeros.

    Raises:
        InputError: all are of one class, or all embeddings of a class are zeros.
    """
    assert images.classes is not None
    stored = images.bank
    if len(images.class_names) < 2:
        raise InputError(
            f"{stored.source}: holds one class only ({images.class_names[0]!r:.99}); add examples of another"
        )
    bank = FeatureBank.from_arrays(
        stored.embeddings, images.classes, stored.image_names, stored.provenance, stored.source
    )
    bank = replace(bank, class_names=tuple(images.class_names))
    if remark := bank.zero_rows():
        report(remark)
    return bank


def queries_at_once(support: FeatureBank) -> int:
    """Number of queries to classify at once, so that any number of them needs little memory."""
    return max(1, min(QUERIES, PAIRS // len(support)))


def check_size(source: str, size: int, other: str, needed: int) -> None:
    """Check that two sources have embeddings of the same size.

    Raises:
        InputError: names both sizes.
    """
    if size != needed:
        raise InputError(
            f"{source}: embeddings have size {size}, and {needed} in {other}; use one backbone for both"
        )


def check_made_alike(features: FeatureBank, made: Mapping[str, str], other: str) -> None:
    """Check that embeddings were made like others: by the same weights and recipe.

    Args:
        features: the embeddings.
        made: provenance of the others; an entry that either lacks is not compared.
        other: name of the others in messages.

    Raises:
        InputError: they were made differently.
    """
    for key, name in (("weights_sha256", "other weights"), ("recipe", "another recipe")):
        if key in made and features.provenance.get(key, made[key]) != made[key]:
            raise InputError(
                f"{features.source}: was embedded with {name} than {other}; extract both in the same way"
            )
