"""NewClasses: a task out of somebody's files, a few labelled examples to learn from, and what to classify."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.common.torch_files import load_torch
from leo_lightning.data.bank import FeatureBank, check_lengths, class_numbers, stored_rows
from leo_lightning.data.feature_file import load_bank
from leo_lightning.data.importers.arrays import read_file
from leo_lightning.data.importers.authors import UNKNOWN, split_keys
from leo_lightning.data.loader import StreamLoader
from leo_lightning.data.normalization import FeatureRecord, Normalization, Normalize, mean_of
from leo_lightning.data.splits import load_split
from leo_lightning.data.task_data import TaskDataModule

QUERIES = 1024
"""Queries that are classified at once."""
PAIRS = 2**24
"""Comparisons with support images at once: fewer queries, if these are very many."""


MISSING = "data.{name}: is missing; name the file or folder of {what} with --data.{name} PATH"
"""What is said where there is nothing to learn from, or nothing to classify."""


class Images(NamedTuple):
    """What a file holds, in its order."""

    bank: FeatureBank
    """The embeddings; not with these labels, which would ask for another order."""
    class_names: Sequence[str] = ()
    classes: Int64[np.ndarray, " n"] | None = None
    """Which of the names each row has; None without labels."""


class Queries(NamedTuple):
    """Some of what is to be classified."""

    row: Int64[Tensor, " M"]
    """Where it is in its file."""
    embeddings: Float[Tensor, "M E"]
    """As they are stored."""


def read_images(path: Path, labelled: bool) -> Images:
    """Read the embeddings of images: the place where a file becomes embeddings, whatever it holds.

    Args:
        path: a feature file, or an npz, npy or torch file such as the importers read.
        labelled: whether labels must be there, or may be.

    Raises:
        InputError: it is not there, of another kind, damaged or inconsistent.
    """
    if path.suffix == ".safetensors" and path.is_file():
        bank = load_bank(path)
        bank.check_finite()
        return Images(bank, bank.class_names, bank.labels.numpy())
    embeddings, labels, image_names, _ = read_file(path, labelled)
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


def support_of(images: Images) -> FeatureBank:
    """Labelled examples, sorted by class.

    Raises:
        InputError: they are all of one class.
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
    return replace(bank, class_names=tuple(images.class_names))


def queries_at_once(support: FeatureBank) -> int:
    """How many queries are classified at once, so that any number of them needs little memory."""
    return max(1, min(QUERIES, PAIRS // len(support)))


class NewClasses(TaskDataModule):
    """New classes by a few labelled examples of each, and images that are to be classified: one task.

    Args:
        support: file of a few labelled examples of each class: features.safetensors, npz, npy or pt.
        query: file of what is to be classified, of the same kinds; labels may be missing.
        normalize: none, l2 or center_l2; null: what the checkpoint records, or l2 without a checkpoint.
        root: folder of features whose training split has the mean for center_l2, if there is no checkpoint.
        ckpt_path: checkpoint whose record of its features is followed; train.py sets it to its --ckpt_path.
    """

    asks = "classes"

    def __init__(
        self,
        support: str | None = None,
        query: str | None = None,
        normalize: Normalize | None = None,
        root: str | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=1, eval_batch_size=None, steps_per_epoch=1, val_tasks=1, test_tasks=1, predict_tasks=1,
            num_workers=0, eval_seed=0, seed=None,
        )  # fmt: skip
        self.support = _named("support", support, "a few labelled examples")
        self.query = _named("query", query, "what is to be classified")
        self.normalize: Normalize | None = normalize
        self.root = None if root is None else Path(root)
        self.ckpt_path = None if ckpt_path is None else Path(ckpt_path)

    def read(self, path: Path, labelled: bool) -> Images:
        """See `read_images`."""
        return read_images(path, labelled)

    @cached_property
    def record(self) -> FeatureRecord | None:
        """What the checkpoint says of its features; None if it does not, or there is none."""
        content = None if self.ckpt_path is None else load_torch(self.ckpt_path)
        return FeatureRecord.of(content, None) if isinstance(content, dict) else None

    @cached_property
    def normalization(self) -> Normalization:
        """Of support and queries."""
        if self.record is not None:
            return self.record.normalization
        if self.normalize != "center_l2":
            return Normalization(self.normalize or "l2")
        if self.root is None:
            raise InputError(
                "data.normalize is center_l2, and without a checkpoint there is no mean to subtract; name "
                "the folder of a training split with --data.root, or take l2"
            )
        return Normalization("center_l2", mean_of(load_split(self.root, "train").embeddings))

    @cached_property
    def examples(self) -> FeatureBank:
        """The labelled examples."""
        return support_of(self.read(self.support, True))

    @cached_property
    def queries(self) -> Images:
        """What is to be classified."""
        return self.read(self.query, False)

    @cached_property
    def labels(self) -> Int64[Tensor, " n"] | None:
        """For each query the class of the support that it has; -1: another one. None without labels."""
        if self.queries.classes is None:
            return None
        number = {name: i for i, name in enumerate(self.examples.class_names)}
        found = np.array([number.get(name, -1) for name in self.queries.class_names], np.int64)
        return torch.from_numpy(found[self.queries.classes])

    @property
    def others(self) -> list[str]:
        """Classes of queries that the support does not have."""
        return [name for name in self.queries.class_names if name not in self.examples.class_names]

    @property
    def notes(self) -> list[str]:
        """What makes one doubt that the features are those that the learner was trained on."""
        trained = UNKNOWN if self.record is None else self.record.provenance.get("backbone", UNKNOWN)
        made = {
            bank.source: bank.provenance.get("backbone", UNKNOWN)
            for bank in (self.examples, self.queries.bank)
        }
        notes = [
            f"{source} was made by {backbone}, and the model was trained on features of {trained}"
            for source, backbone in made.items()
            if UNKNOWN not in (backbone, trained) and backbone != trained
        ]
        seen = {row.tobytes() for row in self.examples.embeddings.float().numpy()}
        again = sum(row.tobytes() in seen for row in self.queries.bank.embeddings.float().numpy())
        if again:
            notes.append(f"{again:,} of the queries are examples of the support, too: they are easy")
        return notes

    def setup(self, stage: str) -> None:
        """Read the files, and refuse what does not fit together."""
        if stage != "predict":
            raise InputError(f"data.support is for `predict`, not for `{stage}`; leave it out")
        support, query, mean = self.examples, self.queries.bank, self.normalization.mean
        trained = {} if self.record is None else self.record.provenance
        check_made_alike(support, trained, "the features of the training")
        check_made_alike(query, trained, "the features of the training")
        check_made_alike(query, support.provenance, support.source)
        check_size(query.source, query.embedding_size, support.source, support.embedding_size)
        if mean is not None:
            check_size(support.source, support.embedding_size, str(self.ckpt_path or self.root), len(mean))

    @property
    def embedding_size(self) -> int:
        """E, of the support."""
        return self.examples.embedding_size

    def predict_dataloader(self) -> StreamLoader:
        """The queries, in their order."""
        return self._eval_loader("predict", len(self.queries.bank))

    def sampler(self, stage: str) -> Callable[[range], Queries]:
        """See `TaskDataModule`. What is numbered are not tasks but the queries of the one there is."""
        return partial(_take, self.queries.bank.embeddings)

    def usual_batch(self, stage: str) -> int:
        """See `TaskDataModule`."""
        return queries_at_once(self.examples)

    def title(self) -> str:
        """See `TaskDataModule`."""
        return f"{self.kind()}, {_count(len(self.queries.bank), 'query', 'queries')}"

    def kind(self) -> str:
        """See `TaskDataModule`."""
        least, most = self.examples.counts.min(), self.examples.counts.max()
        shots = f"{least}" if least == most else f"{least} to {most}"
        return f"{self.examples.num_classes} new classes, {shots}-shot"

    def banner(self, stage: str) -> str:
        """See `TaskDataModule`."""
        labelled = "without labels" if self.queries.classes is None else "labelled"
        return (
            f"{self.examples.source}: {_count(len(self.examples), 'example', 'examples')}; "
            f"{self.queries.bank.source}: {_count(len(self.queries.bank), 'query', 'queries')}, {labelled}; "
            f"embeddings of size {self.embedding_size}, "
            f"normalize {self.normalization.kind}"
        )

    def protocol(self) -> dict[str, int | float | str]:
        """See `TaskDataModule`."""
        return {
            "way": self.examples.num_classes,
            "support": self.examples.source,
            "query": self.queries.bank.source,
            "normalize": self.normalization.kind,
        }

    def provenance(self, split: str) -> dict[str, str]:
        """See `TaskDataModule`."""
        return self.queries.bank.provenance


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def check_size(source: str, size: int, other: str, needed: int) -> None:
    """Check that two kinds of embeddings have as many numbers.

    Raises:
        InputError: says how many they have.
    """
    if size != needed:
        raise InputError(
            f"{source}: embeddings have {size} numbers, those of {other} have {needed}; "
            "use one backbone for both"
        )


def check_made_alike(features: FeatureBank, made: Mapping[str, str], other: str) -> None:
    """Check that embeddings were made as others were: by the same weights, in the same way.

    Args:
        features: the embeddings.
        made: provenance of the others; what it lacks is not compared.
        other: what messages call the others.

    Raises:
        InputError: they were not.
    """
    for key, what in (("weights_sha256", "other weights"), ("recipe", "another recipe")):
        if features.provenance.get(key, found := made.get(key)) != found and found is not None:
            raise InputError(
                f"{features.source}: was embedded with {what} than {other}; extract both in the same way"
            )


def _named(name: str, path: str | None, what: str) -> Path:
    if path is None:
        raise InputError(MISSING.format(name=name, what=what))
    return Path(path)


def _take(embeddings: Float[Tensor, "n E"], rows: range) -> Queries:
    return Queries(torch.arange(rows.start, rows.stop), embeddings[rows.start : rows.stop])
