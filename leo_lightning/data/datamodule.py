"""EpisodeDataModule: N-way K-shot episodes from a folder of feature files, or from arrays."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.arrays import ROOT, Arrays, array_splits
from leo_lightning.data.episode import Episode, EpisodeRows, Pool
from leo_lightning.data.feature_data import FeatureDataModule
from leo_lightning.data.normalization import Normalize
from leo_lightning.data.sampler import sample_rows
from leo_lightning.data.small_classes import described
from leo_lightning.data.splits import check_splits
from leo_lightning.data.task_data import SPLITS
from leo_lightning.data.unbalanced import unbalanced_rows


class EpisodeDataModule(FeatureDataModule):
    """Episodes of a train, a val and a test split that share no class.

    Args:
        root: folder with train.safetensors, val.safetensors and test.safetensors (made by
            `python -m leo_lightning features import`), or a name of features that need no folder: `omniglot`
            (real drawings) or `synthetic`. ./omniglot is a folder. null is synthetic, too: checkpoints of
            earlier releases recorded it.
        way: N, classes per task.
        shot: K, support images per class.
        query: Q, query images per class in training and validation.
        train_way: N in training, if it differs.
        train_shot: K in training, if it differs.
        test_query: Q in testing, or `all` for all images that are not in the support, as in the paper.
        unknown: M, further classes of a test task that have queries but no support, to test how well unknown
            classes are told from known ones.
        query_dirichlet: a: in a test, the N·Q queries of a task are divided among its classes by
            Dirichlet(a, …, a), with a = 2 in Veilleux et al., arXiv:2204.11181; 0: Q of each class.
        batch_size: B, tasks per meta-batch and process.
        eval_batch_size: tasks evaluated at once; changes no result. null: 64, or 128 where all remaining
            images are queries.
        steps_per_epoch: meta-batches per epoch; validation follows each epoch.
        val_tasks: number of validation tasks.
        test_tasks: number of test tasks.
        predict_tasks: number of test tasks to predict.
        normalize: none, l2 (each embedding to length 1) or center_l2 (the mean of the training split is
            subtracted first). A checkpoint brings the mean of its training.
        renormalize: go on where a checkpoint was trained with another `normalize`; otherwise that is refused.
        train_on_val: train on the classes of train and val together, as for the published numbers; then there
            is no validation, and the last checkpoint is tested.
        skip_small_classes: leave out classes with too few images for the tasks, and name them; otherwise
            they are refused.
        in_memory: false leaves the embeddings on disk, for features larger than memory.
        num_workers: processes that sample tasks; 0 samples in the main process, which is usually faster.
        eval_seed: seed of validation and test tasks; keep it the same for all runs, so that they compare.
        seed: seed of the training tasks; null: that of seed_everything.
    """

    asks = "classes"

    def __init__(
        self,
        root: str | Path | None = "omniglot",
        way: int = 5,
        shot: int = 1,
        query: int = 15,
        train_way: int | None = None,
        train_shot: int | None = None,
        test_query: int | Literal["all"] | None = None,
        unknown: int = 0,
        query_dirichlet: int = 0,
        batch_size: int = 12,
        eval_batch_size: int | None = None,
        steps_per_epoch: int = 1000,
        val_tasks: int = 2000,
        test_tasks: int = 10000,
        predict_tasks: int = 100,
        normalize: Normalize = "l2",
        renormalize: bool = False,
        train_on_val: bool = False,
        skip_small_classes: bool = False,
        in_memory: bool = True,
        num_workers: int = 0,
        eval_seed: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            root, normalize, renormalize, train_on_val, skip_small_classes, in_memory, batch_size,
            eval_batch_size, steps_per_epoch, val_tasks, test_tasks, predict_tasks, num_workers, eval_seed,
            seed,
        )  # fmt: skip
        check_least(2, {"data.way": way, "data.train_way": train_way})
        check_least(1, {"data.shot": shot, "data.train_shot": train_shot, "data.query": query})
        if not isinstance(test_query, str):
            check_least(1, {"data.test_query": test_query})
        check_least(0, {"data.unknown": unknown, "data.query_dirichlet": query_dirichlet})
        if unknown and test_query == "all":
            raise InputError(
                f"data.unknown is {unknown}, and data.test_query all: unknown classes need a number of "
                f"queries; set --data.test_query {query}, or --data.unknown 0"
            )
        if query_dirichlet and (test_query == "all" or unknown):
            other, value = ("unknown", 0) if unknown else ("test_query", query)
            raise InputError(
                f"data.query_dirichlet is {query_dirichlet}, and it divides N·Q queries among known classes; "
                f"set --data.{other} {value}, or --data.query_dirichlet 0"
            )
        self.save_hyperparameters(logger=False)
        if isinstance(root, Path):  # a checkpoint holds plain values only
            self.hparams["root"] = os.path.join(os.curdir, root)
        self.way, self.shot, self.query = way, shot, query
        self.train_way, self.train_shot = train_way or way, train_shot or shot
        self.test_query = query if test_query is None else test_query
        self.unknown = unknown
        self.query_dirichlet = query_dirichlet
        self.longer_test = (
            " --data.test_query all"
            + (" --data.unknown 0" if unknown else "")
            + (" --data.query_dirichlet 0" if query_dirichlet else "")
        )

    @classmethod
    def from_arrays(
        cls,
        train: Arrays | None = None,
        val: Arrays | None = None,
        test: Arrays | None = None,
        separate_labels: bool = False,
        **settings: Any,
    ) -> "EpisodeDataModule":
        """Take episodes from embeddings in memory, of which each split is a pair (x, y).

        >>> x, y = torch.randn(60, 8), torch.arange(6).repeat_interleave(10)  # 6 classes of 10 images
        >>> splits = {"train": (x, y), "val": (x + 1, y), "test": (x + 2, y)}
        >>> data = EpisodeDataModule.from_arrays(**splits, separate_labels=True, way=5, shot=1, query=5)
        >>> data.embedding_size
        8

        Args:
            train: x (n, E), floating, kept as stored, except that float64 becomes float32; y (n,), the class
                of every row: whole numbers or names.
            val: the same, of other classes.
            test: the same, of others again.
            separate_labels: equal labels in two splits are different classes, as where each counts from 0.
            settings: all arguments of the class except `root`.

        Raises:
            InputError: the arrays do not fit together, or two splits share a class.
        """
        data = cls(None, **settings)
        data.hparams["root"] = ROOT
        banks = array_splits({"train": train, "val": val, "test": test}, separate_labels)
        data._available = data._large_enough(banks)
        return data

    def other_features(self, stage: str) -> list[str]:
        """Return lines about classes left out, and about what differs from the features of the training."""
        _ = self._available
        small = [described(split, names, self._needed(split)) for split, names in self._left_out.items()]
        notes = small + self._differences(stage)
        if stage == "predict" and self.unknown:
            notes.append("predict asks for known classes only: data.unknown is for `test`")
        if stage == "predict" and self.query_dirichlet:
            notes.append("predict asks for equally many queries: data.query_dirichlet is for `test`")
        return notes

    def queries_apart(self, stage: str) -> str:
        """Say why the queries of a task cannot be answered together, and what to set; empty if they can."""
        if stage in ("test", "predict") and self.test_query == "all":
            return f"data.test_query all is too many; set --data.test_query {self.query}"
        if stage == "test" and self.unknown:
            return "those of data.unknown would change the answers to the others; set --data.unknown 0"
        return ""

    def preparation(self, stage: str) -> Callable[[EpisodeRows], Episode] | None:
        """Return the way from rows to embeddings, for training and evaluation on a CPU.

        On a GPU the bank lies there, too, and rows become embeddings after their transfer.
        """
        on_cpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cpu"
        return partial(self._embedded, stage=stage) if on_cpu else None

    def episode(self, tasks: Sequence[int], stage: str, device: torch.device) -> Episode:
        """Return the tasks with the given numbers, as they are in a stage. Call `setup` first."""
        rows = self.transfer_batch_to_device(self.sampler(stage)(tasks), device, 0)
        return self.gather(rows, SPLITS[stage])

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Open the splits of a stage and refuse those from which no episode can be drawn."""
        if stage == "validate" and self.train_on_val:
            raise InputError("data.train_on_val is true: the validation classes were trained on; use test")
        check_splits(self._available)
        for split in self.splits(stage):
            flag = "--data.test_query" if split == "test" else "--data.query"
            self.bank(split).check_tasks(*self._sizes(split), flag, self._unknown(stage))
            if self.in_memory and split not in self._tables:
                self.bank(split).check_finite()

    def splits(self, stage: str) -> list[str]:
        """Return the splits that a stage goes through."""
        return ["train", "val"] if stage == "fit" and not self.train_on_val else [SPLITS[stage]]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move all rows but the numbers of tasks and classes, which the host needs."""
        if device.type == "cpu":
            return batch
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved._replace(task=batch.task, classes=batch.classes)

    def on_after_batch_transfer(self, batch: EpisodeRows | Episode, dataloader_idx: int) -> Episode:
        """Replace rows by embeddings, on the device where they now are."""
        if isinstance(batch, Episode):
            return batch
        trainer = self.trainer
        assert trainer is not None
        stages = {"fit": trainer.training, "test": trainer.testing, "predict": trainer.predicting}
        return self._embedded(batch, next((stage for stage, now in stages.items() if now), "validate"))

    def _embedded(self, rows: EpisodeRows, stage: str) -> Episode:
        """Return the tasks of a stage as embeddings; those of a test also as the baseline CL2N sees them."""
        episode = self.gather(rows, SPLITS[stage])
        # with all remaining images as queries, another classifier would take half as long again
        if stage == "test" and episode.pool is None and self._centring is not None:
            episode = episode._replace(centred=self._centring.of(episode, rows))
        return episode

    def gather(self, rows: EpisodeRows, split: str) -> Episode:
        """Look up the embeddings of an episode. An episode without queries gets the `Pool` of the split."""
        device = rows.support.device

        def embed(index: Tensor) -> Tensor:
            return self._lookup(split, index.flatten(), device).unflatten(0, index.shape)

        pool = None
        if not rows.query.shape[2]:
            bank = self.bank(split)

            def images(number: int) -> Tensor:
                first = int(bank.offsets[number])
                return self._lookup(split, slice(first, first + int(bank.counts[number])), device)

            pool = Pool(images, torch.from_numpy(bank.offsets))
        unknown = None if rows.unknown is None else embed(rows.unknown)
        return Episode(embed(rows.support), embed(rows.query), rows, pool, unknown=unknown)

    def sampler(self, stage: str) -> Callable[[Sequence[int]], EpisodeRows]:
        """Return the function from task numbers to rows; it holds no embeddings, since workers get a copy."""
        split = SPLITS[stage]
        bank, (way, shot, queries) = self.bank(split), self._sizes(split)
        if stage == "test" and queries is None:
            queries = 0  # left to the `Pool` of the split
        draw: Callable[..., EpisodeRows]
        if stage == "test" and self.query_dirichlet:
            draw = partial(unbalanced_rows, concentration=self.query_dirichlet)
        else:
            draw = partial(sample_rows, unknown=self._unknown(stage))
        return partial(
            draw, seed=self.seed if split == "train" else self.eval_seed, split=split,
            offsets=bank.offsets, counts=bank.counts, way=way, shot=shot,
            queries=queries,  # pyright: ignore[reportArgumentType]: a number where they are unequal
        )  # fmt: skip

    def usual_batch(self, stage: str) -> int:
        """Return another size where all remaining images are queries: thousands in a task."""
        sizes = {"test": 128, "predict": 16} if self.test_query == "all" else {}
        return sizes.get(stage, 64)

    def title(self) -> str:
        """Describe the test tasks in a line."""
        queries, features = self.protocol()["queries"], self._name(self.bank("test"))
        unknown = f", unknown classes: {self.unknown}" if self.unknown else ""
        divided = f" on average, by Dirichlet({self.query_dirichlet})" if self.query_dirichlet else ""
        return f"{self.kind()}{unknown}, queries per class: {queries}{divided}, features: {features}"

    def kind(self) -> str:
        """Name the kind of task."""
        return f"{self.way}-way {self.shot}-shot"

    def banner(self, stage: str) -> str:
        """Describe the features of a stage in a line."""
        bank = self.bank(SPLITS[stage])
        name = f"{self._name(bank)} {bank.provenance.get('split', '')}".strip()
        small = sum(map(len, self._left_out.values()))
        without = f", {small} small classes of all splits left out" if small else ""
        return f"{name}: {bank.summary}, normalize {self.normalize}{without}"

    def __str__(self) -> str:
        """Describe the tasks; Lightning's description would walk through them."""
        return f"{type(self).__name__}({self.kind()}, root={self.hparams['root']!r})"

    def protocol(self) -> dict[str, int | float | str]:
        """Return the settings for which a test result holds."""
        return {
            "way": self.way,
            "shot": self.shot,
            "queries": "all remaining" if self.test_query == "all" else self.test_query,
            **({"unknown": self.unknown} if self.unknown else {}),
            **({"query_dirichlet": self.query_dirichlet} if self.query_dirichlet else {}),
            "trained_on": "train + val" if self.train_on_val else "train",
            "normalize": self.normalize,
            **(
                {"small_classes_left_out": len(self._left_out.get("test", []))}
                if self.skip_small_classes
                else {}
            ),
        }

    def validation_protocol(self) -> dict[str, int | float | str]:
        """Return all settings that validation scores depend on, beside the model."""
        return {
            "way": self.way,
            "shot": self.shot,
            "query": self.query,
            "normalize": self.normalize,
            "tasks": self.val_tasks,
            "eval_seed": self.eval_seed,
            "features": self.stored("val").fingerprint,
        }

    def _sizes(self, split: str) -> tuple[int, int, int | None]:
        """Return N, K and Q of a split; Q is None for all remaining images."""
        if split == "train":
            return self.train_way, self.train_shot, self.query
        test_query = None if isinstance(self.test_query, str) else self.test_query
        return self.way, self.shot, self.query if split == "val" else test_query

    def _unknown(self, stage: str) -> int:
        """Return M of a stage: only a test has unknown classes."""
        return self.unknown if stage == "test" else 0

    def _needed(self, split: str) -> int:
        """Return how many images of a class a task of a split takes."""
        _, shot, query = self._sizes("train" if split == "val" and self.train_on_val else split)
        return shot + (1 if query is None else query)
