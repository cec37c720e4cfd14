"""FeatureDataModule: features of three splits as a learner sees them, and a checkpoint's record of them."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import UNKNOWN, FeatureBank
from leo_lightning.data.centring import Centring
from leo_lightning.data.feature_record import RECORD, FeatureRecord
from leo_lightning.data.normalization import Normalization, Normalize, mean_of
from leo_lightning.data.roots import features_folder, open_splits
from leo_lightning.data.row_file import RowFile
from leo_lightning.data.small_classes import without_small
from leo_lightning.data.splits import load_split, union
from leo_lightning.data.table import Table
from leo_lightning.data.task_data import TaskDataModule


class FeatureDataModule(TaskDataModule):
    """Splits of features, normalised; `EpisodeDataModule` explains the arguments and draws the tasks."""

    def __init__(
        self,
        root: str | Path | None,
        normalize: Normalize,
        renormalize: bool,
        train_on_val: bool,
        skip_small_classes: bool,
        in_memory: bool,
        batch_size: int,
        eval_batch_size: int | None,
        steps_per_epoch: int,
        val_tasks: int,
        test_tasks: int,
        predict_tasks: int,
        num_workers: int,
        eval_seed: int,
        seed: int | None,
    ) -> None:
        super().__init__(
            batch_size, eval_batch_size, steps_per_epoch, val_tasks, test_tasks, predict_tasks, num_workers,
            eval_seed, seed,
        )  # fmt: skip
        if skip_small_classes and not in_memory:
            raise InputError("data.skip_small_classes needs the features in memory: data.in_memory true")
        self.root = features_folder(root)
        self.normalize: Normalize = normalize
        self.renormalize = renormalize
        self.train_on_val = train_on_val
        self.skip_small_classes = skip_small_classes
        self.in_memory = in_memory
        self._left_out: dict[str, list[str]] = {}
        self._tables: dict[str, Table] = {}
        self._files: dict[str, RowFile] = {}
        self._record: FeatureRecord | None = None

    @property
    def embedding_size(self) -> int:
        """E, read from the first feature file there is."""
        return next(iter(self._available.values())).embedding_size

    def bank(self, split: str) -> FeatureBank:
        """Return the features of a split; for `train` with `train_on_val`, of train and val together."""
        return self._both if split == "train" and self.train_on_val else self.stored(split)

    @cached_property
    def _both(self) -> FeatureBank:
        return union(self.stored("train"), self.stored("val"))

    def _differences(self, stage: str) -> list[str]:
        record = self._record
        if record is None:
            return []
        splits = self.splits(stage)
        notes = [record.notes(split, self.stored(split), self.normalize) for split in splits]
        return list(dict.fromkeys(note for lines in notes for note in lines))

    def class_names(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's classes."""
        return self.bank(split).class_names

    @cached_property
    def normalization(self) -> Normalization:
        """The way from embeddings to rows; a mean is that of train (without val, whatever is trained on)."""
        mean = mean_of(self.stored("train").embeddings) if self.normalize == "center_l2" else None
        return Normalization(self.normalize, mean)

    @cached_property
    def _centring(self) -> Centring | None:
        """The way to test tasks of the baseline CL2N; None where they are the learner's, or lack a mean."""
        if self.normalize == "center_l2" or not self.in_memory or "train" not in self._available:
            return None
        mean = mean_of(self.stored("train").embeddings)
        return Centring(self.bank("test").embeddings, self.normalization, mean)

    def provenance(self, split: str) -> dict[str, str]:
        """Return where the features of a split come from."""
        return self.bank(split).provenance

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint's record, under this class's name, of how its embeddings were made."""
        fingerprints = {split: bank.fingerprint for split, bank in self._available.items()}
        classes = self.bank("train").class_names
        return FeatureRecord(self.normalization, self.provenance("train"), fingerprints, classes).state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Normalise as in the training of a checkpoint, by its mean.

        Raises:
            InputError: the record is damaged, or `normalize` is another one, without `renormalize`.
        """
        before, record = self._record, FeatureRecord.of({RECORD: state_dict}, self.embedding_size)
        assert record is not None
        self._record = record
        # without a Trainer at work it is a command, which says so itself
        work = None if self.trainer is None else self.trainer.state.fn
        if work is not None and (before is None or before.fingerprints != record.fingerprints):
            for note in self._differences(work.value):
                rank_zero_warn(note)
        kind = record.normalization.kind
        if kind != self.normalize:
            if not self.renormalize:
                raise InputError(
                    f"data.normalize is {self.normalize}, and the checkpoint was trained with {kind}: its "
                    "scores would mean little; leave it out, or add --data.renormalize true to go on"
                )
            return
        self.normalization = record.normalization
        self._tables.clear()

    def stored(self, split: str) -> FeatureBank:
        """Return the features of a split as its file has them; `load_split` explains why one is missing."""
        if split in self._available:
            return self._available[split]
        if self.root is not None:
            return load_split(self.root, split)
        raise InputError(f"the arrays have no '{split}' split; give from_arrays {split}=(x, y), too")

    @cached_property
    def _available(self) -> dict[str, FeatureBank]:
        """The features of all splits, as in their files, which are opened once and together."""
        banks, self._files = open_splits(self.root, self.in_memory)
        return self._large_enough(banks)

    def _large_enough(self, banks: dict[str, FeatureBank]) -> dict[str, FeatureBank]:
        """Leave out small classes if asked to."""
        if self.skip_small_classes:
            banks, self._left_out = without_small(banks, {split: self._needed(split) for split in banks})
        return banks

    @abstractmethod
    def splits(self, stage: str) -> list[str]:
        """Return the splits that a stage goes through."""

    @abstractmethod
    def _needed(self, split: str) -> int:
        """Return how many images of a class a task of a split takes."""

    def _name(self, bank: FeatureBank) -> str:
        """Name features by their data set, else by their folder."""
        dataset = bank.provenance.get("dataset", UNKNOWN)
        return dataset if dataset != UNKNOWN else str(self.hparams["root"])

    def _lookup(self, split: str, rows: Tensor | slice, device: torch.device) -> Float[Tensor, "n E"]:
        """Return normalised embeddings, on the device."""
        if split not in self._tables:
            # the union of two files lies in memory
            file = None if split == "train" and self.train_on_val else self._files.get(split)
            self._tables[split] = Table(self.bank(split).embeddings, self.normalization, self.in_memory, file)
        return self._tables[split].rows(rows, device)
