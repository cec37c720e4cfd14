"""Accuracy by stage of adaptation, calibration, unknown classes, and the nearest centroid as a baseline."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Centred, Episode
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import Classifier, Learner, Outcome
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.scoring import ShiftedClassifier, score
from leo_lightning.training.task_scores import TaskScores
from leo_lightning.training.unknown_classes import SCORES, unknown_aurocs

CENTROID, CL2N = "nearest_centroid", "nearest_centroid_cl2n"
AUROC = "auroc_"
"""Begins the names of columns that are not accuracies."""


class Classification(Evaluation):
    """Accuracy of classifiers; the loss is the cross-entropy."""

    score = "accuracy"
    mode = "max"
    columns = {"accuracy, %": ("accuracy", 100, "{:.2f}"), "± 95%": ("ci95", 100, "{:.2f}")}  # noqa: RUF012

    @staticmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """Accuracy on the queries of a meta-batch."""
        labels = torch.arange(episode.support.shape[1], device=episode.support.device)[:, None]
        return (outcome.logits.argmax(-1) == labels).float().mean()

    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """Score the tasks of a meta-batch; a test adds the nearest centroid, also of centred embeddings."""
        stages = learner.stages(episode.support)
        final = stages["final"]
        # the same scores and baselines in every precision
        with torch.autocast(episode.support.device.type, enabled=False):
            # thousands of queries per task: leave out the stages on the way
            scored: dict[str, Classifier | ShiftedClassifier] = {"final": final}
            if episode.pool is None:
                scored = {**stages}
            if test:
                scored[CENTROID] = NearestCentroid().adapt(episode.support)
            if episode.centred is not None:
                scored[CL2N] = _cl2n(episode.centred)
            scores = score(scored, episode)
            names, columns = list(scored), scores.accuracy
            if episode.unknown is not None:
                aurocs = unknown_aurocs(final, episode)
                names += [f"{AUROC}{name}" for name in aurocs]
                columns = torch.cat([columns, torch.stack(list(aurocs.values()), dim=1)], dim=1)
        assert episode.rows is not None
        self.table.update(names, columns, episode.rows.task, scores.reliability)
        return scores.cross_entropy

    def compute(self) -> dict[str, TaskScores]:
        """Accuracies of all tasks so far; with unknown classes, `final` has their AUROC, too."""
        scores = super().compute()
        for name in SCORES:
            if (auroc := scores.pop(f"{AUROC}{name}", None)) is not None:
                scores["final"].auroc[name] = auroc
        return scores


def _cl2n(centred: Centred) -> ShiftedClassifier:
    """The nearest centroid of centred embeddings c, for the queries x as they are.

    With x - s m = d c and d > 0, the class whose w·c + b is the largest also has the largest
    d (w·c + b) = w·x - s w·m + d b.
    """
    weight, bias = NearestCentroid().stages(centred.support)["final"]
    assert bias is not None
    scale, distance = (part.flatten(1)[:, None] for part in (centred.scale, centred.distance))
    return ShiftedClassifier(weight, bias[..., None] * distance - (weight @ centred.mean)[..., None] * scale)
