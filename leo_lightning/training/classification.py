"""Accuracy by stage of adaptation, calibration, unknown classes, and the nearest centroid as a baseline."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.scoring import score
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
        stages = dict(learner.stages(episode.support))
        with torch.autocast(
            episode.support.device.type, enabled=False
        ):  # the same baseline in every precision
            if test:
                stages[CENTROID] = NearestCentroid().adapt(episode.support)
            if episode.pool is not None:  # thousands of queries per task: leave out the stages on the way
                stages = {name: stages[name] for name in stages if name in ("final", CENTROID)}
            scores = score(stages, episode)
            names, columns = list(stages), scores.accuracy
            if (centred := episode.centred) is not None:
                baseline = score({"final": NearestCentroid().adapt(centred.support)}, centred)
                names, columns = [*names, CL2N], torch.cat([columns, baseline.accuracy], dim=1)
            if episode.unknown is not None:
                aurocs = unknown_aurocs(stages["final"], episode)
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
