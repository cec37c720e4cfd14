"""Accuracy by stage of adaptation, calibration, and the nearest centroid beside it."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.scoring import score
from leo_lightning.training.task_scores import TaskAccuracy, TaskScores

CENTROID = "nearest_centroid"


class Classification(Evaluation):
    """See `Evaluation`; the loss is the cross-entropy."""

    score = "accuracy"
    mode = "max"
    columns = {"accuracy, %": ("accuracy", 100, "{:.2f}"), "± 95%": ("ci95", 100, "{:.2f}")}  # noqa: RUF012

    def __init__(self) -> None:
        self.baseline = NearestCentroid()
        self.metric: TaskAccuracy | None = None

    @staticmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """See `Evaluation`."""
        labels = torch.arange(episode.support.shape[1], device=episode.support.device)[:, None]
        return (outcome.logits.argmax(-1) == labels).float().mean()

    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """See `Evaluation`."""
        stages = dict(learner.stages(episode.support))
        device = episode.support.device
        with torch.autocast(device.type, enabled=False):  # the same baseline in every precision
            if test:
                stages[CENTROID] = self.baseline.adapt(episode.support)
            if episode.pool is not None:  # thousands of queries for each task: only what counts
                stages = {stage: each for stage, each in stages.items() if stage in ("final", CENTROID)}
            found = score(stages, episode)
        if self.metric is None:
            self.metric = TaskAccuracy(list(stages)).to(device)
        assert episode.rows is not None
        self.metric.update(found.accuracy, episode.rows.task, found.reliability)
        return found.cross_entropy

    def compute(self) -> dict[str, TaskScores]:
        """See `Evaluation`."""
        assert self.metric is not None
        return self.metric.compute()
