"""MetaLearner: the outer loop around any learner. The mathematics is the learner's."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int64
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from leo_lightning.common.errors import DivergedError, InputError, check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.data.hashes import fold_tasks
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner, Outcome, class_path
from leo_lightning.learners.parts.normal_mixture import Predictive, Regressor
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.training.checkpoint import check_fits, load_learner, read_checkpoint
from leo_lightning.training.classification import Classification
from leo_lightning.training.clipping import clip_, gradient_norm
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.noise_ahead import NoiseAhead
from leo_lightning.training.one_thread import OneThread
from leo_lightning.training.regression import Regression
from leo_lightning.training.task_scores import TaskScores

UNHEALTHY = {
    "dead_latents": (0.5, "most latent dimensions carry nothing: is there a ReLU after the relation net?"),
    "clamped_stds": (0.95, "nearly all standard deviations of the codes are clamped: nothing is sampled"),
}
"""Limits of fractions that a learner reports. Healthy runs: no dead latents, 0.01 to 0.8 of stds clamped."""


class Adam(torch.optim.Adam):
    """torch's Adam, which for weights on a CPU does not open the GPU's driver at every step."""

    def _accelerator_graph_capture_health_check(self) -> None:
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super()._accelerator_graph_capture_health_check()


class Prediction(NamedTuple):
    """A learner's predictions for the queries of B tasks."""

    probability: Float[torch.Tensor, "B N Q N"]
    """Probability of each class."""
    spread: Float[torch.Tensor, "B N Q N"] | None
    """Its standard deviation over the learner's samples; None for a learner that does not sample."""


class MetaLearner(pl.LightningModule):
    """Trains and evaluates a learner on episodes.

    Args:
        learner: the few-shot method; LEO by default.
        learning_rate: outer learning rate, of Adam.
        clip_value: every gradient entry is first clipped to ± this value.
        clip_norm: the norm of each gradient tensor, by itself, is then clipped to this value.
        lr_scheduler: schedule of the learning rate: path of a class of torch.optim.lr_scheduler, with its
            arguments. It advances after each optimiser step and does not follow --trainer.max_steps: set
            T_max with it. null: the rate is constant.
        compile: compile the learner (torch.compile): on a CPU a minute of warm-up, and no gain.
        max_bad_steps: stop after so many steps in a row whose loss or gradient is not finite; each of them
            is skipped and counted.
        seed: seed of noise and dropout; null: the seed of seed_everything.
    """

    def __init__(
        self,
        learner: Learner,
        learning_rate: float = 1e-4,
        clip_value: float = 0.1,
        clip_norm: float = 0.1,
        max_bad_steps: int = 20,
        seed: int | None = None,
        compile: bool = False,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        rates = {"learning_rate": learning_rate, "clip_value": clip_value, "clip_norm": clip_norm}
        check_positive({f"model.{name}": value for name, value in rates.items()})
        check_least(1, {"model.max_bad_steps": max_bad_steps})
        self.learner = learner
        self.learning_rate = learning_rate
        self.clip_value = clip_value
        self.clip_norm = clip_norm
        self.max_bad_steps = max_bad_steps
        self.seed = seed or 0
        self.lr_scheduler = lr_scheduler
        self.compile_learner = compile
        if compile:
            learner.check_compilable()
        self.save_hyperparameters(
            {
                "learner": {"class_path": class_path(learner), "init_args": learner.init_args()},
                "learning_rate": learning_rate,
                "clip_value": clip_value,
                "clip_norm": clip_norm,
                "max_bad_steps": max_bad_steps,
                "seed": self.seed,
            },
            logger=False,
        )
        self.bad_steps = self.bad_steps_in_a_row = 0
        self.steps_trained = 0
        self._new_rate = False
        self._noise_ahead: NoiseAhead | None = None
        self.evaluation: type[Evaluation] = {"classes": Classification, "values": Regression}[
            learner.predicts
        ]
        self._measured = self.evaluation()
        self._diagnostics: dict[str, torch.Tensor] = {}
        self.val_scores: dict[str, TaskScores] = {}
        self.test_scores: dict[str, TaskScores] = {}

    def setup(self, stage: str) -> None:
        """Give the learner the size of the data; compile it if configured, for a GPU as one graph.

        Raises:
            InputError: the learner has another embedding size than the data, or none in a forked process, or
                the tasks are not for it.
        """
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, TaskDataModule):
            self.check_data(data, stage)
            new = getattr(self.learner, "embedding_size", 0) is None
            if new and isinstance(self.trainer.strategy.launcher, _MultiProcessingLauncher):
                raise InputError(
                    "forked and spawned processes train a copy of the learner, which needs weights before; "
                    "give it embedding_size=data.embedding_size"
                )
            self.learner.take_size(data.embedding_size)
            self.hparams["learner"]["init_args"] = self.learner.init_args()
        if self.compile_learner:
            self.compile_learner = False  # once, also if a test follows the training
            on_gpu = self.trainer.strategy.root_device.type == "cuda"
            graphs = "reduce-overhead" if on_gpu else None
            self.learner.compile(fullgraph=True, dynamic=False, mode=graphs)

    def check_data(self, data: TaskDataModule, stage: str) -> None:
        """Refuse tasks of a stage whose queries the learner cannot answer together, if it must.

        Raises:
            InputError: says what to set instead.
        """
        if self.learner.transductive and (mistake := data.queries_apart(stage)):
            raise InputError(
                f"{type(self.learner).__name__} is transductive, it answers all queries of a task together: "
                f"{mistake}"
            )

    def configure_callbacks(self) -> list[pl.Callback]:
        """Use one thread on a CPU; a Trainer that trains and then tests has the callback already."""
        callbacks = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        return [] if any(isinstance(callback, OneThread) for callback in callbacks) else [OneThread()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, as in the paper; with the fused kernel on a CPU (on a GPU it excludes clipping under AMP)."""
        adam = Adam(self.parameters(), lr=self.learning_rate, fused=self.device.type == "cpu")
        if self.lr_scheduler is None:
            return adam
        schedule = {"scheduler": self.lr_scheduler(adam), "interval": "step"}
        return {"optimizer": adam, "lr_scheduler": schedule}  # pyright: ignore[reportReturnType]

    # Training

    def on_fit_start(self) -> None:
        """Check the trainer."""
        self.check_trainer(self.trainer)

    def on_train_start(self) -> None:
        """Take a changed learning rate, as a resumed optimiser has another one. Begin to draw noise ahead."""
        if self._new_rate and self.lr_scheduler is None:
            for group in cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
                group["lr"] = self.learning_rate
        if self.device.type == "cpu":
            self._noise_ahead = NoiseAhead(self.learner)

    def teardown(self, stage: str) -> None:
        """End the thread that draws noise."""
        if self._noise_ahead is not None:
            self._noise_ahead.close()
            self._noise_ahead = None

    def check_trainer(self, trainer: pl.Trainer) -> None:
        """Refuse a setting of Lightning's that the outer loop replaces by its own.

        Raises:
            InputError: says what to set instead.
        """
        if trainer.gradient_clip_val is not None:
            raise InputError(
                "trainer.gradient_clip_val: gradients are clipped tensor by tensor here; "
                "set model.clip_value and model.clip_norm instead"
            )

    def training_step(self, batch: Episode, batch_idx: int) -> torch.Tensor:
        """Outer loss of a meta-batch. A task's noise is a function of (seed, step, task number) only."""
        assert batch.rows is not None
        tasks, noise = batch.rows.task, None
        batch, seeds = self._cast(batch), self.noise_seeds(self.seed, self.global_step, tasks)
        if self._noise_ahead is not None:
            noise = self._noise_ahead.draw(batch, seeds, self._next_seeds(tasks, batch_idx))
        outcome: Outcome = self.learner(batch, seeds, noise)
        if self._logs_this_step():
            values = {"train/loss": outcome.loss}
            values |= {f"train/{self.evaluation.score}": self.evaluation.of_step(outcome, batch)}
            values |= {f"loss/{name}": term for name, term in outcome.terms.items()}
            values |= {f"inner/{name}": value for name, value in outcome.diagnostics.items()}
            self.log_dict(self._over_processes(values))
        self.steps_trained = self.global_step + 1
        self._diagnostics = outcome.diagnostics
        # make the gradients of a loss that is not finite NaN, on all processes: bad steps are found by them
        return outcome.loss * torch.where(outcome.loss.detach().isfinite(), 1.0, torch.nan)

    @staticmethod
    def noise_seeds(seed: int, step: int, tasks: Int64[torch.Tensor, " B"]) -> list[int]:
        """Seeds of the tasks' noise, the same however processes or accumulation divide a meta-batch."""
        return fold_tasks(tasks.numpy(), seed, step).tolist()

    def _next_seeds(self, tasks: Int64[torch.Tensor, " B"], batch_idx: int) -> list[int]:
        """Seeds of the next meta-batch, as long as tasks come in the order of their numbers."""
        steps = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        following = tasks + self.trainer.world_size * len(tasks)
        return self.noise_seeds(self.seed, self.global_step + steps, following)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each gradient by value, then by its own norm; drop the gradients of a bad step.

        Adam skips parameters without a gradient: neither weights nor moments change.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = gradient_norm(gradients)
        if norm.isfinite():
            clip_(gradients, self.clip_value, self.clip_norm)
            self.bad_steps_in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)
            self._count_bad_step()
        if self._logs_this_step():
            rate = optimizer.param_groups[0]["lr"]
            values = {"gradient_norm": norm, "bad_steps": float(self.bad_steps), "learning_rate": rate}
            self.log_dict({f"health/{name}": value for name, value in values.items()})

    def _count_bad_step(self) -> None:
        self.bad_steps += 1
        self.bad_steps_in_a_row += 1
        if self.bad_steps_in_a_row < self.max_bad_steps:
            return
        bad = f"loss or gradients were not finite in {self.bad_steps_in_a_row} steps in a row"
        if self.bad_steps_in_a_row > self.global_step:  # no step has changed the weights yet
            raise DivergedError(
                f"training could not begin: {bad}, from the first one on; the features are too large for the "
                "inner loop: normalise them (--data.normalize l2), or lower the learner's own step sizes"
            )
        raise DivergedError(
            f"training diverged: {bad}, up to step {self.global_step}; try a lower --model.learning_rate"
        )

    def _over_processes(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Means over all processes, whose meta-batches are of equal size."""
        if self.trainer.world_size == 1:
            return values
        means = self.trainer.strategy.reduce(torch.stack([value.detach() for value in values.values()]))
        return dict(zip(values, means, strict=True))  # pyright: ignore[reportArgumentType]

    def _logs_this_step(self) -> bool:
        # `log` takes time even at steps whose values Lightning throws away
        if self._trainer is None:
            return False
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return every > 0 and (self.global_step + 1) % every == 0

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget earlier scores."""
        self._measured = self.evaluation()

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Score validation tasks."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Keep the scores of all tasks in `val_scores` and log their means by stage of adaptation."""
        self.val_scores = self._measured.compute()
        for stage, scores in self.val_scores.items():
            # on all processes, since each of them chooses the best checkpoint by it
            name = self._metric_name("val", stage)
            self.log(name, scores.mean)
            if stage == "final":
                self.log(f"{name}_ci95", scores.ci95)
        self._warn_if_unhealthy()

    def on_test_epoch_start(self) -> None:
        """Forget earlier scores."""
        self._measured = self.evaluation()

    def test_step(self, batch: Episode, batch_idx: int) -> None:
        """Score test tasks, with baselines."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Keep the scores of all tasks in `test_scores` and log their means."""
        self.test_scores = self._measured.compute()
        for stage, scores in self.test_scores.items():
            name = self._metric_name("test", stage)
            self.log_dict({name: scores.mean, f"{name}_ci95": scores.ci95}, rank_zero_only=True)
        for score, scores in self.test_scores["final"].auroc.items():
            name = f"test/auroc_{score}"
            self.log_dict({name: scores.mean, f"{name}_ci95": scores.ci95}, rank_zero_only=True)
        extra = self.test_scores["final"].extra
        if any(math.isnan(number) for number in extra.values()):
            rank_zero_warn("the predictions are NaN because weights of the model are NaN")
        self.log_dict({f"test/{name}": number for name, number in extra.items()}, rank_zero_only=True)

    def predict_step(self, batch: Episode, batch_idx: int) -> Prediction | Predictive:
        """Predict the queries."""
        batch = self._cast(batch)
        if isinstance(self.learner, Regressor) and self.learner.predicts == "values":
            return self.learner.predictive(batch, self.learner.adapt(batch.support))
        classifier = self.learner.adapt(batch.support)
        with torch.autocast(self.device.type, enabled=False):  # as a test scores them
            spread = classifier.spread(batch.query) if isinstance(classifier, SampledClassifier) else None
            return Prediction(classifier(batch.query).softmax(-1), spread)

    def _evaluate(self, batch: Episode, split: str) -> None:
        batch = self._cast(batch)
        loss = self._measured.add(self.learner, batch, test=split == "test").mean()
        self.log(f"{split}/loss", loss, on_epoch=True, batch_size=len(batch.support), sync_dist=True)

    def _metric_name(self, split: str, stage: str) -> str:
        return f"{split}/{self.evaluation.score}" + ("" if stage == "final" else f"_{stage}")

    def _warn_if_unhealthy(self) -> None:
        for name, (limit, meaning) in UNHEALTHY.items():
            value = self._diagnostics.get(name)
            if value is not None and value > limit:
                rank_zero_warn(f"step {self.global_step}: inner/{name} = {value.item():.2f}; {meaning}")

    # State

    def _cast(self, batch: Episode) -> Episode:
        """The episode in the model's precision (`precision: 64-true`)."""
        return batch.in_precision(cast(torch.dtype, self.dtype))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the counts of bad steps."""
        checkpoint["bad_steps"] = {"total": self.bad_steps, "in_a_row": self.bad_steps_in_a_row}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts, and refuse a checkpoint of another model."""
        self.check_fits(checkpoint)
        if self._trainer is not None:
            # Lightning loads the weights first and then makes them float64, which would lose half the digits
            self.trainer.precision_plugin.convert_module(self)
        counts = checkpoint.get("bad_steps", {"total": 0, "in_a_row": 0})
        self.bad_steps, self.bad_steps_in_a_row = counts["total"], counts["in_a_row"]
        self.steps_trained = checkpoint["global_step"]
        self._new_rate = checkpoint["hyper_parameters"].get("learning_rate") != self.learning_rate

    def check_fits(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another learner, or a damaged one.

        Raises:
            InputError: says which setting differs.
        """
        check_fits(self.learner, checkpoint)
        counts = checkpoint.get("bad_steps", {"total": 0, "in_a_row": 0})
        if not isinstance(counts, dict) or [type(counts.get(k)) for k in ("total", "in_a_row")] != [int, int]:
            raise InputError("the checkpoint's count of bad steps is damaged; use another checkpoint")

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, checkpoint_path: str | Path
    ) -> "MetaLearner":
        """Build a model from a checkpoint alone, on the CPU.

        Lightning would import and call what the checkpoint names. Here that can only be a learner of this
        package, or one that is already imported.

        Raises:
            InputError: the checkpoint is damaged, or it names something other than a learner.
        """
        path = Path(checkpoint_path)
        checkpoint = read_checkpoint(path)
        stored, names = checkpoint["hyper_parameters"], list(inspect.signature(cls).parameters)[1:]
        settings = {name: stored[name] for name in names if isinstance(stored.get(name), int | float)}
        model = cls(load_learner(checkpoint, path).train(), **settings)
        if any(weight.dtype == torch.float64 for weight in model.parameters()):
            model.double()
        model.on_load_checkpoint(checkpoint)
        return model
