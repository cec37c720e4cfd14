"""The tasks that a validation found hardest, as a table."""

from collections.abc import Sequence

import torch

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.runs.pictures.confusion import answers
from leo_lightning.runs.pictures.view import Picture, View

SHOWN = 10


def draw(view: View) -> Picture | None:
    """The tasks with the lowest accuracies, or the largest errors; None without a validation."""
    if view.scores is None:
        return None
    worst_last = view.learner.predicts == "values"
    order = view.scores.values.argsort(descending=worst_last, stable=True)[:SHOWN]
    tasks, values = view.scores.task[order].tolist(), view.scores.values[order].tolist()
    episode = view.episode(tasks)
    names = _names(view, episode)
    if worst_last:
        header = ["rank", "task", "family", "mean_squared_error", "support"]
        families = [family for (family,) in names]
        rows = zip(tasks, families, values, _points(episode), strict=True)
    else:
        header = ["rank", "task", "classes", "accuracy", "most_confused", "support"]
        classes = [", ".join(each) for each in names]
        confused = _confused(view, episode, names)
        rows = zip(tasks, classes, values, confused, _images(view, episode), strict=True)
    return Picture([header, *([rank, *row] for rank, row in enumerate(rows, start=1))])


def _names(view: View, episode: Episode) -> list[Sequence[str]]:
    assert episode.rows is not None
    assert episode.rows.classes is not None
    names = view.data.class_names("val")
    return [[names[number] for number in task] for task in episode.rows.classes.tolist()]


def _confused(view: View, episode: Episode, names: Sequence[Sequence[str]]) -> list[str]:
    """Of each task the class that is most often taken for a certain other one."""
    found, Q = answers(view.learner, episode), episode.query.shape[2]
    said = []
    for counts, mine in zip(found, names, strict=True):
        wrong = counts.clone().fill_diagonal_(0)
        i, j = divmod(int(wrong.argmax()), len(mine))
        said.append(f"{mine[i]} → {mine[j]} ({int(wrong[i, j])} of {Q})" if wrong.any() else "")
    return said


def _images(view: View, episode: Episode) -> list[str]:
    """Names of the support's images, class by class; empty where features have none."""
    data, rows = view.data, episode.rows
    known = data.bank("val").image_names if isinstance(data, EpisodeDataModule) else None
    if known is None or rows is None:
        return [""] * len(episode.support)
    return [
        "; ".join(", ".join(known[row] for row in each) for each in task) for task in rows.support.tolist()
    ]


def _points(episode: Episode) -> list[str]:
    """The support, as points."""
    points = episode.support[:, 0].double().cpu()
    return ["; ".join(f"({x:.2f}, {y:.2f})" for x, y in task.tolist()) for task in torch.unbind(points)]
