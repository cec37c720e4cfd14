"""FunctionDataModule: tasks of the paper's regression."""

from collections.abc import Callable, Sequence
from functools import partial

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.data.functions import FAMILIES, sample_points
from leo_lightning.data.task_data import SPLITS, TaskDataModule


class FunctionDataModule(TaskDataModule):
    """Sines and lines, to be learned from a few noisy points (Section 4.1). Nothing is read from a disk.

    Args:
        shot: K, support points of a task.
        query: Q, queries of a task.
        noise: standard deviation of the values that are seen.
        batch_size: B, tasks per meta-batch and process.
        eval_batch_size: tasks evaluated at once; changes no result.
        steps_per_epoch: meta-batches that count as an epoch: validation follows each.
        val_tasks: number of validation tasks.
        test_tasks: number of test tasks.
        predict_tasks: number of test tasks to predict.
        num_workers: processes that sample tasks; 0 samples in the main process, which is usually faster.
        eval_seed: seed of validation and test tasks; the same for all runs, so that they compare.
        seed: seed of the training tasks; null: that of seed_everything.
    """

    asks = "values"

    def __init__(
        self,
        shot: int = 5,
        query: int = 15,
        noise: float = 0.3,
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
            batch_size, eval_batch_size, steps_per_epoch, val_tasks, test_tasks, predict_tasks, num_workers,
            eval_seed, seed,
        )  # fmt: skip
        check_least(1, {"data.shot": shot, "data.query": query})
        if not noise > 0:
            raise InputError(f"data.noise is {noise}: it must be above 0")
        self.shot, self.query, self.noise = shot, query, noise

    @property
    def embedding_size(self) -> int:
        """Two: x and the value there."""
        return 2

    def class_names(self, split: str) -> tuple[str, ...]:
        """See `TaskDataModule`. The families of functions."""
        return FAMILIES

    def sampler(self, stage: str) -> Callable[[Sequence[int]], Episode]:
        """See `TaskDataModule`."""
        split = SPLITS[stage]
        return partial(
            sample_points, seed=self.seed if split == "train" else self.eval_seed, split=split,
            shot=self.shot, queries=self.query, noise=self.noise,
        )  # fmt: skip

    def usual_batch(self, stage: str) -> int:
        """See `TaskDataModule`."""
        return 500

    def title(self) -> str:
        """See `TaskDataModule`."""
        return f"{self.kind()}, queries: {self.query}, half of them sines, half lines"

    def kind(self) -> str:
        """See `TaskDataModule`."""
        return f"{self.shot}-shot regression"

    def banner(self, stage: str) -> str:
        """See `TaskDataModule`."""
        return f"sines and lines, noise {self.noise}"

    def protocol(self) -> dict[str, int | float | str]:
        """See `TaskDataModule`."""
        return {"shot": self.shot, "queries": self.query, "noise": self.noise}

    def provenance(self, split: str) -> dict[str, str]:
        """See `TaskDataModule`."""
        return {"dataset": "sines and lines", "split": split}
