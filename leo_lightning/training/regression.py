"""Squared error by stage of adaptation and family, and how far the stated uncertainty can be trusted."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.data.functions import FAMILIES
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.learners.parts.normal_mixture import Predictive, Regressor
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.ideal_observer import predict
from leo_lightning.training.simple_fits import SIMPLE
from leo_lightning.training.task_scores import TaskScores

INTERVALS = {"coverage_50": 0.5, "coverage_90": 0.9}
"""Central intervals of a predictive distribution: the fraction of values that must lie within."""
ORACLES = ("family_oracle", "ideal_observer")


class Regression(Evaluation):
    """Squared error of regressors, which is the loss, too.

    A test adds the mean of the predictive distribution where that is a mixture. For sines and lines it adds
    two observers that know how the tasks are made, one of them also the task's family; for other functions
    the mean of the support and a linear fit. For the observers' and the learner's distributions it reports
    the negative log-likelihood and the coverage of intervals. All numbers are in units of the user's values.
    """

    score = "mse"
    mode = "min"
    columns = {  # noqa: RUF012
        "squared error": ("mse", 1, "{:#.4g}"),
        "± 95%": ("ci95", 1, "{:#.3g}"),
        "its root": ("rmse", 1, "{:#.4g}"),
        "sines": ("mse_sine", 1, "{:.3f}"),
        "lines": ("mse_line", 1, "{:.3f}"),
    }

    @staticmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """Squared error on the queries of a meta-batch."""
        return (outcome.logits - episode.query[..., -1:]).square().mean() * episode.scale**2

    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """Score the tasks of a meta-batch."""
        assert episode.rows is not None
        values = episode.query[:, 0, :, -1].double()
        with torch.autocast(values.device.type, enabled=False):
            stages = learner.stages(episode.support)
            means = {name: stage(episode.query)[:, 0, :, 0].double() for name, stage in stages.items()}
            extra: dict[str, Tensor] = {}
            if test:
                assert isinstance(learner, Regressor)
                predictive = learner.predictive(episode, stages["final"])
                if predictive.weight.shape[1] > 1:
                    means["predictive_mean"] = predictive.average().double()
                extra = _uncertainty("final", predictive, values, episode.scale)
                if episode.known_families:
                    assert episode.rows.classes is not None
                    family = episode.rows.classes[:, 0].to(values.device)
                    extra["family"] = family.double()
                    for name, known in zip(ORACLES, (family, None), strict=True):
                        inputs = episode.query[:, 0, :, 0].double()
                        observer = predict(episode.support[:, 0], inputs, episode.noise, known)
                        means[name] = observer.average().double()
                        extra |= _uncertainty(name, observer, values, episode.scale)
                else:
                    means |= {name: fit(episode) for name, fit in SIMPLE.items()}
        errors = {name: (mean - values).square().mean(1) * episode.scale**2 for name, mean in means.items()}
        columns = errors | extra
        self.table.update(columns, torch.stack(list(columns.values()), dim=1), episode.rows.task)
        return errors["final"] / episode.scale**2  # in the units of the training loss

    def compute(self) -> dict[str, TaskScores]:
        """Squared errors of all tasks so far; those of a test have errors by family and uncertainty, too."""
        scores = super().compute()
        family = scores.pop("family", None)
        for column in [name for name in scores if "/" in name]:
            stage, measure = column.split("/")
            scores[stage].extra[measure] = scores.pop(column).mean
        for stage in scores.values():
            stage.extra["rmse"] = math.sqrt(stage.mean)
        if family is not None:
            for stage in scores.values():
                for number, name in enumerate(FAMILIES):
                    members = family.values == number
                    part = TaskScores(stage.task[members], stage.values[members])
                    stage.extra |= {f"mse_{name}": part.mean, f"mse_{name}_ci95": part.ci95}
        return scores


def _uncertainty(
    name: str, predictive: Predictive, values: Float[Tensor, "B M"], scale: float
) -> dict[str, Float[Tensor, " B"]]:
    """Negative log-likelihood, and the fraction of values within each of `INTERVALS`, by column."""
    rank = predictive.rank(values)
    columns = {f"{name}/nll": math.log(scale) - predictive.log_density(values).mean(1)}
    for interval, width in INTERVALS.items():
        columns[f"{name}/{interval}"] = ((rank - 0.5).abs() <= width / 2).double().mean(1)
    return columns
