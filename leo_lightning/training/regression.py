"""Squared error by stage of adaptation and family, and how far the stated uncertainty can be trusted."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.data.functions import FAMILIES
from leo_lightning.learners.learner import Learner, Outcome
from leo_lightning.learners.parts.normal_mixture import Predictive
from leo_lightning.learners.parts.regressor import Regressor
from leo_lightning.training.evaluation import Evaluation
from leo_lightning.training.ideal_observer import predict
from leo_lightning.training.task_scores import TaskScores, TaskTable

INTERVALS = {"coverage_50": 0.5, "coverage_90": 0.9}
"""Central intervals of a predictive distribution: the share of values that must lie within."""
ORACLES = ("family_oracle", "ideal_observer")


class Regression(Evaluation):
    """See `Evaluation`; the loss is the squared error.

    A test adds the mean of the predictive distribution where that is a mixture, and two who know how the
    tasks are made: one of them knows the task's family, too. Of these and of the learner's distribution it
    measures negative log-likelihood and intervals.
    """

    score = "mse"
    mode = "min"
    columns = {  # noqa: RUF012
        "squared error": ("mse", 1, "{:.3f}"),
        "± 95%": ("ci95", 1, "{:.3f}"),
        "sines": ("mse_sine", 1, "{:.3f}"),
        "lines": ("mse_line", 1, "{:.3f}"),
    }

    def __init__(self) -> None:
        self.metric: TaskTable | None = None

    @staticmethod
    def of_step(outcome: Outcome, episode: Episode) -> Float[Tensor, ""]:
        """See `Evaluation`."""
        return (outcome.logits - episode.query[..., -1:]).square().mean()

    def add(self, learner: Learner, episode: Episode, test: bool) -> Float[Tensor, " B"]:
        """See `Evaluation`."""
        inputs, values = episode.query[:, 0].double().unbind(-1)
        with torch.autocast(values.device.type, enabled=False):
            stages = learner.stages(episode.support)
            answers = {stage: each(episode.query)[:, 0, :, 0].double() for stage, each in stages.items()}
            columns: dict[str, Tensor] = {}
            if test:
                assert isinstance(learner, Regressor)
                assert episode.rows is not None
                assert episode.rows.classes is not None
                predictive = learner.predictive(episode, stages["final"])
                if predictive.weight.shape[1] > 1:
                    answers["predictive_mean"] = predictive.average().double()
                family = episode.rows.classes[:, 0].to(values.device)
                columns = {"family": family.double(), **_judged("final", predictive, values)}
                for name, known in zip(ORACLES, (family, None), strict=True):
                    found = predict(episode.support[:, 0], inputs, episode.noise, known)
                    answers[name] = found.average().double()
                    columns |= _judged(name, found, values)
        errors = {name: (answer - values).square().mean(1) for name, answer in answers.items()}
        columns = errors | columns
        if self.metric is None:
            self.metric = TaskTable(list(columns)).to(values.device)
        assert episode.rows is not None
        self.metric.update(torch.stack(list(columns.values()), dim=1), episode.rows.task)
        return errors["final"]

    def compute(self) -> dict[str, TaskScores]:
        """See `Evaluation`. What is known of a predictive distribution is with `final`."""
        assert self.metric is not None
        found = self.metric.compute()
        family = found.pop("family", None)
        if family is not None:
            for name in ("final", *ORACLES):
                measures = ((each, found.pop(f"{name}/{each}").mean) for each in ("nll", *INTERVALS))
                found[name].extra.update(measures)
            for scores in found.values():
                for number, name in enumerate(FAMILIES):
                    mine = family.values == number
                    part = TaskScores(scores.task[mine], scores.values[mine])
                    scores.extra |= {f"mse_{name}": part.mean, f"mse_{name}_ci95": part.ci95}
        return found


def _judged(
    whose: str, predictive: Predictive, values: Float[Tensor, "B M"]
) -> dict[str, Float[Tensor, " B"]]:
    rank = predictive.rank(values)
    found = {f"{whose}/nll": -predictive.log_density(values).mean(1)}
    for name, share in INTERVALS.items():
        found[f"{whose}/{name}"] = ((rank - 0.5).abs() <= share / 2).double().mean(1)
    return found
