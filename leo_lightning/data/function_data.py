"""FunctionDataModule: tasks of the paper's regression."""

from collections.abc import Callable, Sequence
from functools import partial

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.data.functions import FAMILIES, sample_points
from leo_lightning.data.task_data import SPLITS, TaskDataModule


class FunctionDataModule(TaskDataModule):
    """Sines and lines, learned from a few noisy points (Section 4.1). Nothing is read from disk.

    Args:
        shot: K, support points of a task.
        query: Q, queries of a task.
        noise: standard deviation of the observed values.
        batch_size: B, tasks per meta-batch and process.
        eval_batch_size: tasks evaluated at once; changes no result. null: 500.
        steps_per_epoch: meta-batches per epoch; validation follows each epoch.
        val_tasks: number of validation tasks.
        test_tasks: number of test tasks.
        predict_tasks: number of test tasks to predict.
        num_workers: processes that sample tasks; 0 samples in the main process, which is usually faster.
        eval_seed: seed of validation and test tasks; keep it the same for all runs, so that they compare.
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
            batch_size, 500 if eval_batch_size is None else eval_batch_size, steps_per_epoch, val_tasks,
            test_tasks, predict_tasks, num_workers, eval_seed, seed,
        )  # fmt: skip
        self.save_hyperparameters(logger=False)
        check_least(1, {"data.shot": shot, "data.query": query})
        check_positive({"data.noise": noise})
        self.shot, self.query, self.noise = shot, query, noise

    @property
    def embedding_size(self) -> int:
        """Two: x and the value there."""
        return 2

    def class_names(self, split: str) -> tuple[str, ...]:
        """Name the families of functions."""
        return FAMILIES

    def sampler(self, stage: str) -> Callable[[Sequence[int]], Episode]:
        """Return the function from task numbers to points."""
        split = SPLITS[stage]
        return partial(
            sample_points, seed=self.seed if split == "train" else self.eval_seed, split=split,
            shot=self.shot, queries=self.query, noise=self.noise,
        )  # fmt: skip

    def title(self) -> str:
        """Describe the test tasks in a line."""
        return f"{self.kind()}, queries: {self.query}, half of them sines, half lines"

    def kind(self) -> str:
        """Name the kind of task."""
        return f"{self.shot}-shot regression"

    def banner(self, stage: str) -> str:
        """Describe the functions in a line."""
        return f"sines and lines, noise {self.noise}"

    def protocol(self) -> dict[str, int | float | str]:
        """Return the settings for which a test result holds."""
        return {"shot": self.shot, "queries": self.query, "noise": self.noise}

    def validation_protocol(self) -> dict[str, int | float | str]:
        """Return all settings that validation scores depend on, beside the model."""
        return self.protocol() | {"tasks": self.val_tasks, "eval_seed": self.eval_seed}

    def provenance(self, split: str) -> dict[str, str]:
        """Return where the tasks come from."""
        return {"dataset": "sines and lines", "split": split}
