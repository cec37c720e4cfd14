"""A table of the hardest tasks of a validation."""

from collections.abc import Sequence

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.runs.pictures.confusion import answers
from leo_lightning.runs.pictures.view import Picture, View

SHOWN = 10


def draw(view: View) -> Picture | None:
    """The tasks with the lowest accuracies, or the largest errors; None without a validation."""
    if view.scores is None:
        return None
    errors = view.learner.predicts == "values"
    order = view.scores.values.argsort(descending=errors, stable=True)[:SHOWN]
    tasks, scores = view.scores.task[order].tolist(), view.scores.values[order].tolist()
    episode = view.episode(tasks)
    assert episode.rows is not None
    assert episode.rows.classes is not None
    split = view.data.class_names("val")
    names = [[split[number] for number in task] for task in episode.rows.classes.tolist()]
    if errors:
        header = ["rank", "task", "function", "mean_squared_error", "support"]
        columns = [[family for (family,) in names], scores, _points(episode)]
    else:
        header = ["rank", "task", "classes", "accuracy", "most_confused", "support"]
        classes = [", ".join(task) for task in names]
        columns = [classes, scores, _most_confused(view, episode, names), _images(view, episode)]
    rows = zip(range(1, len(tasks) + 1), tasks, *columns, strict=True)
    return Picture([header, *map(list, rows)])


def _most_confused(view: View, episode: Episode, names: Sequence[Sequence[str]]) -> list[str]:
    """For each task, the class most often mistaken for a certain other class."""
    pairs, Q = [], episode.query.shape[2]
    for counts, classes in zip(answers(view.learner, episode), names, strict=True):
        wrong = counts.fill_diagonal_(0)
        i, j = divmod(int(wrong.argmax()), len(classes))
        pairs.append(f"{classes[i]} → {classes[j]} ({int(wrong[i, j])} of {Q})" if wrong.any() else "")
    return pairs


def _images(view: View, episode: Episode) -> list[str]:
    """Image names of the support, class by class; empty if the features have no image names."""
    data, rows = view.data, episode.rows
    names = data.bank("val").image_names if isinstance(data, EpisodeDataModule) else None
    if names is None or rows is None:
        return [""] * len(episode.support)
    return [
        "; ".join(", ".join(names[row] for row in images) for images in task)
        for task in rows.support.tolist()
    ]


def _points(episode: Episode) -> list[str]:
    """The support as points."""
    points = episode.support[:, 0].double().cpu().tolist()
    return [
        "; ".join(f"({', '.join(f'{number:.2f}' for number in point)})" for point in task) for task in points
    ]
