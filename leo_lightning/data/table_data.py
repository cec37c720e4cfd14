"""TableDataModule: tasks of regression from CSV files."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from leo_lightning.common.errors import InputError, check_least, check_positive, printable
from leo_lightning.data.bank import listed
from leo_lightning.data.episode import Episode
from leo_lightning.data.point_tables import fingerprint, read_tasks
from leo_lightning.data.sampler import sample_rows
from leo_lightning.data.task_data import SPLITS, TaskDataModule

USUAL_NOISE = 0.1
"""Noise as a share of the values' deviation where none is given."""


class Standard(NamedTuple):
    """Means and deviations of the training tasks' points, by which all points are normalised."""

    columns: tuple[str, ...]
    mean: Float64[Tensor, " E"]
    std: Float64[Tensor, " E"]
    trained_on: tuple[str, ...]
    """Names of the training tasks."""
    fingerprint: str
    """Checksum of the training tasks."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Standard":
        """Return the record in a checkpoint.

        Raises:
            InputError: it is damaged.
        """
        try:
            found = cls(*(state[name] for name in cls._fields))
            texts = [*found.columns, *found.trained_on, found.fingerprint]
            good = all(isinstance(text, str) for text in texts) and bool((found.std > 0).all())
            for part in (found.mean, found.std):
                good = good and part.dtype == torch.float64 and part.shape == (len(found.columns),)
                good = good and bool(part.isfinite().all())
        except (AttributeError, KeyError, RuntimeError, TypeError):
            good = False
        if not good:
            raise InputError("the checkpoint's record of its points is damaged; use another checkpoint")
        return found._replace(columns=tuple(found.columns), trained_on=tuple(found.trained_on))


class TableDataModule(TaskDataModule):
    """Functions that you have measured, a task each, from CSV files.

    Inputs and values are normalised by mean and deviation of the training tasks' points. Scores and
    predictions are in units of the values.

    Args:
        root: a CSV file with the columns task, inputs and value; or a folder with a file for each task,
            maybe divided into folders train, val and test.
        shot: K, support points of a task.
        query: Q, queries of a task.
        task: column with the name of the task, in a file of all tasks.
        inputs: columns to predict from; null: all except task, split and value.
        target: column with the value to predict.
        noise: standard deviation of the measured values around the function, in their units. No training
            uses it; log-loss, coverage and predicted deviations do. null: a tenth of the values' deviation.
        val_share: share of the tasks that validate, unless folders or a column `split` divide them.
        test_share: the same for the tasks that test.
        division_seed: another seed, another such division.
        skip_small_tasks: leave out tasks of fewer than K + Q points, and name them; otherwise they are
            refused.
        batch_size: B, tasks per meta-batch and process.
        eval_batch_size: tasks evaluated at once; changes no result. null: 500.
        steps_per_epoch: meta-batches per epoch; validation follows each epoch.
        val_tasks: number of validation tasks: draws of points from the functions that validate.
        test_tasks: number of test tasks, likewise.
        predict_tasks: number of test tasks to predict.
        num_workers: processes that sample tasks; 0 samples in the main process, which is usually faster.
        eval_seed: seed of validation and test tasks; keep it the same for all runs, so that they compare.
        seed: seed of the training tasks; null: that of seed_everything.
    """

    asks = "values"

    def __init__(
        self,
        root: str | Path,
        shot: int = 5,
        query: int = 15,
        task: str = "task",
        inputs: list[str] | None = None,
        target: str = "y",
        noise: float | None = None,
        val_share: float = 0.2,
        test_share: float = 0.2,
        division_seed: int = 0,
        skip_small_tasks: bool = False,
        batch_size: int = 12,
        eval_batch_size: int | None = None,
        steps_per_epoch: int = 1000,
        val_tasks: int = 2000,
        test_tasks: int = 10000,
        predict_tasks: int = 100,
        num_workers: int = 0,
        eval_seed: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            batch_size, 500 if eval_batch_size is None else eval_batch_size, steps_per_epoch, val_tasks,
            test_tasks, predict_tasks, num_workers, eval_seed, seed,
        )  # fmt: skip
        self.save_hyperparameters(logger=False)
        self.hparams["root"] = str(root)  # a checkpoint holds plain values only
        check_least(1, {"data.shot": shot, "data.query": query})
        check_positive({"data.noise": noise, "data.val_share": val_share, "data.test_share": test_share})
        if val_share + test_share >= 1:
            raise InputError("data.val_share and data.test_share leave no task to train on; lower them")
        self.root, self.shot, self.query = Path(root), shot, query
        self.skip_small_tasks = skip_small_tasks
        self._given_noise = noise
        self._tasks = read_tasks(self.root, task, inputs, target, val_share, test_share, division_seed)
        self._loaded: Standard | None = None

    @property
    def embedding_size(self) -> int:
        """Number of inputs, and one for the value."""
        return len(self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the inputs, then of the value."""
        return self._tasks.columns

    @cached_property
    def _own(self) -> Standard:
        """Means and deviations of the training tasks in the tables."""
        names = self.class_names("train")
        points = torch.cat([self._tasks.points[name] for name in names])
        mean, std = points.mean(0), points.std(0, correction=0)
        for name, column in zip(self.columns, points.T, strict=True):
            if bool((column == column[0]).all()):
                raise InputError(
                    f"{self.root}: column '{printable(name)}' is {column[0]:g} in all points of the training "
                    "tasks, so there is nothing to learn from it; remove it, or check it"
                )
        return Standard(self.columns, mean, std, names, fingerprint(self._tasks, "train"))

    @property
    def standard(self) -> Standard:
        """Means and deviations in use: those of the checkpoint, if there is one."""
        return self._own if self._loaded is None else self._loaded

    @property
    def noise(self) -> float:
        """Standard deviation of the measured values, in their units."""
        std = float(self.standard.std[-1])
        return USUAL_NOISE * std if self._given_noise is None else self._given_noise

    def class_names(self, split: str) -> tuple[str, ...]:
        """Return the names of the tasks of a split, without those left out.

        Raises:
            InputError: there are none, or some have too few points.
        """
        names = self._tasks.splits.get(split)
        if names is None:
            raise InputError(f"{self.root}: has no {split} tasks; there are {', '.join(self._tasks.splits)}")
        small = self._small(split)
        if small and not self.skip_small_tasks:
            raise InputError(
                f"{self.root}: {printable(listed(small))} of {split} have fewer than K + Q = "
                f"{self.shot} + {self.query} points; lower data.shot or data.query, or leave these tasks out "
                "with --data.skip_small_tasks true"
            )
        if len(small) == len(names):
            raise InputError(f"{self.root}: no task of {split} has K + Q = {self.shot} + {self.query} points")
        return tuple(name for name in names if name not in {*small})

    def _small(self, split: str) -> list[str]:
        points, least = self._tasks.points, self.shot + self.query
        return [name for name in self._tasks.splits.get(split, []) if len(points[name]) < least]

    def setup(self, stage: str) -> None:
        """Refuse splits from which no task can be drawn."""
        for split in ("train", "val") if stage == "fit" else (SPLITS[stage],):
            self.class_names(split)
        _ = self.standard

    def sampler(self, stage: str) -> Callable[[Sequence[int]], Episode]:
        """Return the function from task numbers to points."""
        split, (_, mean, std, *_) = SPLITS[stage], self.standard
        points, counts = self._stored(split)
        return partial(
            _sample, points=((points - mean) / std).float(), noise=self.noise / float(std[-1]),
            offset=float(mean[-1]), scale=float(std[-1]),
            seed=self.seed if split == "train" else self.eval_seed, split=split,
            offsets=np.cumsum(counts) - counts, counts=counts, way=1, shot=self.shot, queries=self.query,
        )  # fmt: skip

    def _stored(self, split: str) -> tuple[Float64[Tensor, "_points E"], Int64[ndarray, " C"]]:
        """Return all points of a split as they are in the tables, and the number of each task."""
        parts = [self._tasks.points[name] for name in self.class_names(split)]
        return torch.cat(parts), np.array([len(part) for part in parts])

    def query_points(self, episode: Episode) -> Float64[Tensor, "B Q E"]:
        """Return the queries of test tasks as they are in the tables."""
        assert episode.rows is not None
        return self._stored("test")[0][episode.rows.query[:, 0].cpu()]

    # the checkpoint's record

    def state_dict(self) -> dict[str, Any]:
        """Return means and deviations, and what they are of, as plain values and tensors."""
        return {
            name: list(part) if isinstance(part, tuple) else part
            for name, part in self.standard._asdict().items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Normalise as in the training of a checkpoint.

        Raises:
            InputError: the record is damaged, or of other columns.
        """
        standard = Standard.of(state_dict)
        if standard.columns != self.columns:
            raise InputError(
                f"{self.root}: the columns are {printable(listed(self.columns, 10))}, and the checkpoint was "
                f"trained on {printable(listed(standard.columns, 10))}; set data.inputs and data.target"
            )
        self._loaded = standard

    def other_features(self, stage: str) -> list[str]:
        """Return lines about tasks left out, and about what differs from the training of the checkpoint."""
        least = f"fewer than K + Q = {self.shot} + {self.query} points"
        lines = [
            f"{split}: left out {len(small)} of {len(names)} tasks, which have {least}: {listed(small, 20)}"
            for split, names in self._tasks.splits.items()
            if self.skip_small_tasks and (small := self._small(split))
        ]
        if self._loaded is not None:
            changed = "train" in self._tasks.splits and self._sum("train") != self._loaded.fingerprint
            if changed:
                lines.append(f"{self.root}: the training tasks differ from the ones of the checkpoint")
            split, trained_on = SPLITS[stage], {*self._loaded.trained_on}
            seen = [name for name in self.class_names(split) if name in trained_on]
            if seen and split != "train":
                lines.append(
                    f"{self.root}: {len(seen)} tasks of {split} have names of tasks that were trained on "
                    f"({listed(seen)}), so their scores may say nothing about new tasks"
                )
        return [printable(line) for line in lines]

    # descriptions

    def title(self) -> str:
        """Describe the test tasks in a line."""
        names, unit = self.class_names("test"), printable(self.columns[-1])
        return (
            f"{self.kind()}, queries: {self.query}, drawn from {len(names)} functions of {self.root}; errors "
            f"in units of {unit} squared, log-loss in units of {unit}"
        )

    def kind(self) -> str:
        """Name the kind of task."""
        return f"{self.shot}-shot regression"

    def banner(self, stage: str) -> str:
        """Describe tasks, points, units and noise in a line."""
        tasks, standard = self._tasks, self.standard
        splits = ", ".join(f"{split} {len(names)}" for split, names in tasks.splits.items())
        counts = [len(points) for points in tasks.points.values()]
        normal = ", ".join(
            f"{printable(name)} {mean:.4g} ± {std:.4g}"
            for name, mean, std in zip(*map(list, standard[:3]), strict=True)
        )
        origin = "" if self._given_noise is not None else " (a tenth of the deviation; set data.noise)"
        small = sum(len(self._small(split)) for split in tasks.splits)
        without = f" ({small} small ones left out)" if small and self.skip_small_tasks else ""
        return (
            f"{self.root}: {len(counts)} tasks{without} of {min(counts)} to {max(counts)} points, divided "
            f"{tasks.divided_by}: {splits}; normalised by {normal}; noise {self.noise:.4g}{origin}"
        )

    def protocol(self) -> dict[str, int | float | str]:
        """Return the settings for which a test result holds."""
        return {"shot": self.shot, "queries": self.query, "noise": self.noise}

    def validation_protocol(self) -> dict[str, int | float | str]:
        """Return all settings that validation scores depend on, beside the model."""
        more = {"tasks": self.val_tasks, "eval_seed": self.eval_seed, "points": self._sum("val")}
        return self.protocol() | more

    def _sum(self, split: str) -> str:
        return fingerprint(self._tasks, split)

    def provenance(self, split: str) -> dict[str, str]:
        """Return where the tasks come from."""
        return {
            "dataset": self.root.stem,
            "split": split,
            "source": str(self.root),
            "points": self._sum(split),
        }


def _sample(
    tasks: Sequence[int],
    points: Float[Tensor, "_points E"],
    noise: float,
    offset: float,
    scale: float,
    **choice: Any,
) -> Episode:
    """Return the points of the given tasks; `choice` is the rest of the arguments of `sample_rows`."""
    rows = sample_rows(tasks, **choice)
    return Episode(points[rows.support], points[rows.query], rows, noise=noise, offset=offset, scale=scale)
