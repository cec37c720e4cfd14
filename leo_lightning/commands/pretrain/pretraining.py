"""Pretraining: a backbone and a linear classifier learn the training classes (paper, Section 4.2.2).

What matters is not how well they know these classes but how well the embeddings separate others: after each
epoch the nearest centroid solves few-shot tasks of the validation classes, which choose the best checkpoint.
"""

from dataclasses import asdict, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from leo_lightning.commands.pretrain.batches import ImageBatch
from leo_lightning.common.errors import DivergedError, InputError, check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.data.hashes import fold
from leo_lightning.data.sampler import sample_rows
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.networks import set_steps
from leo_lightning.images.backbones.recipe import Pooling, Recipe
from leo_lightning.images.backbones.weights import RUN_RECIPE
from leo_lightning.images.folder import ImageSplit
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.training.classification import Classification

_TASKS_AT_ONCE = 100
_FINAL_RATE = 1e-3  # of the cosine schedule, as a fraction of the highest rate


class Pretraining(pl.LightningModule):
    """Trains a backbone to classify the training classes.

    Args:
        classes: number of training classes.
        preparation: recipe of the images; the network is added here.
        backbone: wrn-28-10, resnet-12 (learn2learn's), conv-4, or the name of a timm model; null: the network
            of the weights, or resnet-12.
        weights: to start from: a file, `pretrained` (timm's) or `pretrained:DATASET` (learn2learn's); null:
            random ones.
        freeze_epochs: epochs at the start in which only the head learns, and the backbone stays as it is.
        backbone_rate: the backbone's learning rate as a fraction of learning_rate.
        keep_statistics: batch normalization keeps the means and variances of the weights; those of few images
            cost more than learning gains.
        options: arguments of the network's class, such as {hidden_size: 128} of conv-4.
        pooling: mean over the positions of a feature map, or flatten them.
        optimizer: sgd (momentum 0.9, Nesterov) or adamw.
        learning_rate: the highest one.
        weight_decay: of all weights except biases and normalization.
        schedule: cosine, one_cycle (Smith and Topin) or constant.
        warmup_steps: steps in which the rate rises to learning_rate; one_cycle has its own rise.
        label_smoothing: share of the target spread over all classes (Szegedy et al., CVPR 2016).
        channels_last: use the memory layout in which convolutions are fastest.
        val_way: classes per validation task.
        val_shot: examples per class.
        val_tasks: number of validation tasks.
        seed: of dropout; null: seed_everything.
    """

    def __init__(
        self,
        classes: int,
        preparation: Recipe,
        backbone: str | None = None,
        weights: str | None = None,
        freeze_epochs: int = 0,
        backbone_rate: float = 1.0,
        keep_statistics: bool = False,
        options: dict[str, Any] | None = None,
        pooling: Pooling = "mean",
        optimizer: Literal["sgd", "adamw"] = "sgd",
        learning_rate: float = 0.1,
        weight_decay: float = 5e-4,
        schedule: Literal["cosine", "one_cycle", "constant"] = "cosine",
        warmup_steps: int = 0,
        label_smoothing: float = 0.1,
        channels_last: bool = True,
        val_way: int = 5,
        val_shot: int = 1,
        val_tasks: int = 1000,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_positive({"model.learning_rate": learning_rate, "model.backbone_rate": backbone_rate})
        check_least(0, {"model.weight_decay": weight_decay, "model.warmup_steps": warmup_steps})
        check_least(0, {"model.freeze_epochs": freeze_epochs})
        for name, value in (("freeze_epochs", freeze_epochs), ("keep_statistics", keep_statistics)):
            if value and weights is None:
                raise InputError(f"model.{name} keeps what weights hold: name them with --model.weights")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"model.label_smoothing is {label_smoothing}: it must be at least 0 and below 1")
        check_least(2, {"model.val_way": val_way})
        check_least(1, {"model.val_shot": val_shot, "model.val_tasks": val_tasks})
        network = backbone or "resnet-12"
        recipe = replace(preparation, backbone=network, options=options or {}, pooling=pooling)
        self.backbone = Backbone(recipe)
        self.head = nn.Linear(self.backbone.embedding_size(), classes)
        self.freeze_epochs = freeze_epochs
        self.backbone_rate = backbone_rate
        self.keep_statistics = keep_statistics
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.label_smoothing = label_smoothing
        self.channels_last = channels_last
        self.val_way, self.val_shot, self.val_tasks = val_way, val_shot, val_tasks
        self.seed = seed or 0
        self.save_hyperparameters({RUN_RECIPE: asdict(recipe), "classes": classes}, logger=False)
        self._embedded: list[tuple[Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        """Choose the memory layout."""
        if self.channels_last:
            self.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    # Training

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        """Make dropout a function of (seed, process, step), so that a stopped run continues unchanged."""
        torch.manual_seed(fold(self.seed, self.global_rank, self.global_step))
        set_steps(self.backbone, self.global_step)
        self.backbone.train(not self._frozen)  # statistics of batches stay, too
        for module in self.backbone.modules() if self.keep_statistics else ():
            if isinstance(module, _BatchNorm):
                module.eval()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of a batch."""
        with torch.set_grad_enabled(not self._frozen):
            embeddings = self.backbone(batch.images)
        logits = self.head(embeddings)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and (self.global_step + 1) % every == 0:
            if not loss.isfinite():
                raise DivergedError(
                    f"training diverged: the loss of step {self.global_step} is not finite; "
                    "try a lower --model.learning_rate"
                )
            accuracy = (logits.argmax(1) == batch.labels).float().mean()
            self.log_dict({"train/loss": loss.detach(), "train/accuracy": accuracy})
        if self._frozen:  # several processes wait for the gradients of all parameters
            loss = loss + sum(0 * parameter.sum() for parameter in self.backbone.parameters())
        return loss

    @property
    def _frozen(self) -> bool:
        """Whether only the head learns."""
        return self.current_epoch < self.freeze_epochs

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the gradients of a frozen backbone: it keeps its weights, and the optimizer no state of it."""
        if self._frozen:
            for parameter in self.backbone.parameters():
                parameter.grad = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and its schedule over all steps of the run."""
        rate = self.learning_rate
        parts: list[tuple[nn.Module, float]] = [(self, rate)]
        if self.backbone_rate != 1:
            parts = [(self.head, rate), (self.backbone, self.backbone_rate * rate)]
        groups = [
            {
                "params": [p for p in part.parameters() if (p.ndim >= 2) == decays],
                "lr": lr,
                "weight_decay": decay,
            }
            for part, lr in parts
            for decays, decay in ((True, self.weight_decay), (False, 0.0))
        ]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.learning_rate, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        schedule = {"scheduler": self._scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}  # pyright: ignore[reportReturnType]

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        total = self.trainer.estimated_stepping_batches
        if self.schedule == "one_cycle":
            rates = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, rates, total_steps=int(total))
        if self.schedule == "constant":
            scheduler: LRScheduler = LambdaLR(optimizer, lambda step: 1.0)
        else:
            steps = max(1, int(total) - self.warmup_steps)
            lowest = _FINAL_RATE * self.learning_rate * min(1, self.backbone_rate)
            scheduler = CosineAnnealingLR(optimizer, steps, eta_min=lowest)
        if not self.warmup_steps:
            return scheduler
        rise = LinearLR(optimizer, 1 / self.warmup_steps, total_iters=self.warmup_steps)
        return SequentialLR(optimizer, [rise, scheduler], [self.warmup_steps])

    # Validation

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Embed images."""
        self._embedded.append((batch.rows.cpu(), self.backbone(batch.images).float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of the nearest centroid on the validation tasks."""
        images: ImageSplit = self.trainer.datamodule.splits["val"]  # pyright: ignore[reportAttributeAccessIssue]
        embeddings = F.normalize(self._gathered(), dim=1)
        offsets = images.counts.cumsum() - images.counts
        evaluation, learner = Classification(), NearestCentroid()
        way, queries = min(self.val_way, len(images.class_names)), self.queries(images)
        for start in range(0, self.val_tasks, _TASKS_AT_ONCE):
            tasks = range(start, min(start + _TASKS_AT_ONCE, self.val_tasks))
            rows = sample_rows(tasks, 0, "val", offsets, images.counts, way, self.val_shot, queries)
            evaluation.add(
                learner, Episode(embeddings[rows.support], embeddings[rows.query], rows), test=False
            )
        accuracy = evaluation.compute()["final"]
        self.log("val/accuracy", accuracy.mean)
        self.log("val/accuracy_ci95", accuracy.ci95)

    def validation_protocol(self, images: ImageSplit) -> dict[str, Any]:
        """Return all settings that validation scores depend on, beside the network."""
        return {
            "way": self.val_way,
            "shot": self.val_shot,
            "tasks": self.val_tasks,
            "classes": dict(zip(images.class_names, images.counts.tolist(), strict=True)),
        }

    def _gathered(self) -> Float[Tensor, "n E"]:
        """Return the embeddings of all validation images, of all processes, in order."""
        parts = [self._embedded]
        if self.trainer.world_size > 1:
            parts *= self.trainer.world_size
            torch.distributed.all_gather_object(parts, self._embedded)
        batches = [batch for part in parts for batch in part]
        rows, embeddings = (torch.cat(column) for column in zip(*batches, strict=True))
        self._embedded = []
        return embeddings[rows.argsort()]

    def queries(self, images: ImageSplit) -> int:
        """Return the number of queries per class in a validation task: 15, or as many as there are.

        Raises:
            InputError: there are too few images for a task.
        """
        if len(images.class_names) < 2:
            raise InputError(f"{images.folder}: validation needs at least two classes")
        fewest = int(images.counts.min())
        if fewest <= self.val_shot:
            name = images.class_names[int(images.counts.argmin())]
            advice = "lower --model.val_shot, or remove the class" if fewest > 1 else "remove the class"
            raise InputError(
                f"{images.folder}: class {name!r} has too few images for a validation task, {fewest} of "
                f"{self.val_shot + 1}; {advice}"
            )
        return min(15, fewest - self.val_shot)
