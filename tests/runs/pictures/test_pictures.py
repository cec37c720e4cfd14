"""Numbers of the pictures against plain loops, and that the pictures can be drawn."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leo_lightning.common.figure_style import figure_style
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.function_data import FunctionDataModule
from leo_lightning.data.functions import FAMILIES
from leo_lightning.data.splits import save_splits
from leo_lightning.learners.anil import ANIL
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.linear_softmax import LinearSoftmax
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.runs.pictures import (
    codes,
    confusion,
    hardest_tasks,
    inner_steps,
    learning_rates,
    task_scores,
)
from leo_lightning.runs.pictures.album import markdown
from leo_lightning.runs.pictures.gallery import PICTURES
from leo_lightning.runs.pictures.view import View
from leo_lightning.training.task_scores import TaskScores
from tests.commands.figures.subjects import E, banks, settled, small_leo

VAL_TASKS = 20


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them smaller."""
    monkeypatch.setattr("leo_lightning.runs.pictures.view.BATCH", 8)


def data(folder: Path, **settings: Any) -> EpisodeDataModule:
    """Tasks of 3 of 5 classes."""
    if not (folder / "val.safetensors").exists():
        save_splits(list(banks().items()), folder)
    chosen = {"root": str(folder), "way": 3, "shot": 1, "query": 4, "val_tasks": VAL_TASKS}
    module = EpisodeDataModule(**(chosen | settings))
    module.setup("validate")
    return module


def view(learner: Learner, of: Any) -> View:
    """With scores that are counted here, task by task."""
    seen = View(learner, of, torch.device("cpu"), torch.float64, None)
    values = [score_of(learner, seen.episode([task])) for task in range(of.val_tasks)]
    scores = TaskScores(torch.arange(of.val_tasks), torch.tensor(values, dtype=torch.float64))
    return View(learner, of, torch.device("cpu"), torch.float64, scores)


def score_of(learner: Learner, task: Any, support: bool = False) -> float:
    asked = task.support if support else task.query
    answer = learner.adapt(task.support)(asked)[0]
    if learner.predicts == "values":
        return (answer[..., 0] - asked[0, ..., 1]).square().mean().item()
    return np.mean([int(logits.argmax()) == n for n, row in enumerate(answer) for logits in row])


def functions() -> FunctionDataModule:
    return FunctionDataModule(shot=4, query=6, val_tasks=VAL_TASKS)


def general(base: Any = None) -> GeneralLEO:
    base = base or MLPRegressor(1, (3,))
    size = E if isinstance(base, LinearSoftmax) else 2
    sizes = {"num_latents": 2, "encoder_sizes": (3,), "decoder_sizes": (3,)}
    return settled(GeneralLEO(size, base=base, latent_steps=2, finetuning_steps=1, latent_lr=1e-3, **sizes))


def records(rows: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


LEARNERS = {
    "LEO": (small_leo, data),
    "LEO with a centroid": (lambda: small_leo(centroid_scale=1.0), data),
    "general LEO": (lambda: general(LinearSoftmax()), data),
    "Meta-SGD": (lambda: settled(MetaSGD(E, 4, steps=3)), data),
    "ANIL": (lambda: settled(ANIL(E, 4, steps=2)), data),
    "LEO for functions": (general, lambda folder: functions()),
    "MAML for functions": (
        lambda: settled(MAMLRegression(2, (3,), steps=2, learn_rates=True)),
        lambda folder: functions(),
    ),
}
STEPS = {"LEO": 5, "LEO with a centroid": 5, "general LEO": 3, "Meta-SGD": 3, "ANIL": 2}
STEPS |= {"LEO for functions": 3, "MAML for functions": 1}  # which names only beginning and end


@pytest.mark.parametrize("name", list(LEARNERS))
def test_inner_steps_end_where_adaptation_does(name: str, tmp_path: Path):
    """Catches steps left out, support for queries, values that overwrite each other, and padded tasks."""
    make, tasks = LEARNERS[name]
    seen = view(make(), tasks(tmp_path))
    with figure_style(), torch.inference_mode():
        picture = inner_steps.draw(seen)
        assert picture is not None
        assert picture.figure is not None
        picture.figure.draw_without_rendering()
    table = records(picture.rows)
    last = {row["measure"]: row for row in table if row["step"] == STEPS[name]}
    assert len(table) == len(last) * (STEPS[name] + 1)
    assert seen.scores is not None
    values = seen.learner.predicts == "values"
    score, own = ("query_error", "support_error") if values else ("accuracy", "support_accuracy")
    support = [score_of(seen.learner, seen.episode([task]), support=True) for task in range(VAL_TASKS)]
    assert last[score]["mean"] == pytest.approx(seen.scores.mean)
    assert last[score]["ci95"] == pytest.approx(seen.scores.ci95)
    assert last[own]["mean"] == pytest.approx(np.mean(support))
    assert [last[own]["p25"], last[own]["p75"]] == pytest.approx(list(np.quantile(support, [0.25, 0.75])))


def test_codes_are_the_learners_in_their_main_directions(tmp_path: Path):
    """Catches codes of another phase, z and z' projected apart, and directions that vary less than others."""
    seen = view(small_leo(), data(tmp_path))
    picture = drawn(codes, seen)
    table, names = records(picture.rows), [f"val{n}" for n in range(5)]
    z, adapted, labels = [], [], []
    for episode in seen.episodes():
        steps = seen.learner.every_step(episode.support)
        z += steps.latents[0][:, :, 0].flatten(0, 1)
        adapted += steps.latents[-1][:, :, 0].flatten(0, 1)
        labels += [names[number] for number in episode.rows.classes.flatten()]
    assert [row["class"] for row in table] == labels
    assert [row["task"] for row in table] == [task for task in range(VAL_TASKS) for _ in range(3)]
    points = torch.stack([*z, *adapted]).numpy()
    left, sizes, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    expected = left[:, :2] * sizes[:2] * np.sign([column[np.abs(column).argmax()] for column in left.T[:2]])
    mine = [[row[f"{phase}_x"], row[f"{phase}_y"]] for phase in ("z", "adapted") for row in table]
    np.testing.assert_allclose(mine, expected, atol=1e-8)
    share = sizes[0] ** 2 / (sizes**2).sum()
    assert picture.figure.axes[0].get_xlabel() == f"first direction, {share:.0%} of the variance"


def test_one_latent_dimension(tmp_path: Path):
    """Catches a second direction that is not there."""
    assert len(drawn(codes, view(small_leo(num_latents=1), data(tmp_path))).rows) == 1 + 3 * VAL_TASKS


def test_codes_of_functions_are_told_apart_by_family():
    """Catches the task's only class for its family."""
    rows = records(drawn(codes, view(general(), functions())).rows)
    assert {row["class"] for row in rows} == set(FAMILIES)


def test_confusion_counts_only_tasks_where_both_were_present(tmp_path: Path):
    """Catches shares that depend on which tasks were drawn, and rows taken for columns."""
    seen = view(small_leo(), data(tmp_path))
    asked: dict[tuple[str, str], int] = {}
    answered: dict[tuple[str, str], int] = {}
    for task in range(VAL_TASKS):
        episode = seen.episode([task])
        names = [f"val{number}" for number in episode.rows.classes[0]]
        for n, row in enumerate(seen.learner.adapt(episode.support)(episode.query)[0]):
            for logits in row:
                for m, other in enumerate(names):
                    asked[names[n], other] = asked.get((names[n], other), 0) + 1
                    hit = int(logits.argmax()) == m
                    answered[names[n], other] = answered.get((names[n], other), 0) + hit
    picture = drawn(confusion, seen)
    rows = {(row["class"], row["answered"]): row for row in records(picture.rows)}
    assert {pair: row["queries"] for pair, row in rows.items()} == asked
    for pair, row in rows.items():
        assert row["share"] == pytest.approx(answered[pair] / asked[pair])
    worst = max((pair for pair in rows if pair[0] != pair[1]), key=lambda pair: rows[pair]["share"])
    side = picture.figure.axes[1].texts[1].get_text()
    assert side.splitlines()[0] == f"{100 * rows[worst]['share']:.0f}%  {worst[0]} → {worst[1]}"


@pytest.mark.parametrize("queries", [3, 20, 75, 76, 400])
def test_each_bar_holds_as_many_possible_accuracies(queries: int):
    """Catches a histogram with the teeth of a comb, and accuracies of 0 and 1 that fall out of it."""
    possible = np.arange(queries + 1) / queries
    counts, _ = np.histogram(possible, task_scores.accuracy_edges(queries))
    assert counts.sum() == queries + 1
    assert len(set(counts[:-1])) == 1
    assert counts[-1] <= counts[0]
    assert len(counts) <= task_scores.BARS


@pytest.mark.parametrize("values", [False, True])
def test_histogram_has_every_task(values: bool, tmp_path: Path):
    """Catches tasks at the ends that are left out, and a mean of something else."""
    seen = view(general(), functions()) if values else view(small_leo(), data(tmp_path))
    picture = (task_scores.errors if values else task_scores.accuracies)(seen)
    assert picture is not None
    assert picture.figure is not None
    assert sum(row["tasks"] for row in records(picture.rows)) == VAL_TASKS
    assert seen.scores is not None
    labels = [line.get_label() for line in picture.figure.axes[0].lines]
    mean = seen.scores.mean
    assert labels[0] == (f"mean {mean:.3g}" if values else f"mean {100 * mean:.2f}%")
    if not values:
        assert labels[1] == "chance 33%"


def test_hardest_tasks_come_first(tmp_path: Path):
    """Catches the easiest ones, another task's classes or images, and a pair that is not confused most."""
    of = data(tmp_path)
    seen = view(small_leo(), of)
    table = records(drawn(hardest_tasks, seen).rows)
    assert seen.scores is not None
    order = sorted(range(VAL_TASKS), key=lambda task: (seen.scores.values[task].item(), task))
    assert [row["task"] for row in table] == order[:10]
    assert [row["rank"] for row in table] == list(range(1, 11))
    bank = of.bank("val")
    for row in table:
        assert row["accuracy"] == seen.scores.values[row["task"]].item()
        episode = seen.episode([row["task"]])
        names = [bank.class_names[number] for number in episode.rows.classes[0]]
        assert row["classes"] == ", ".join(names)
        images = [bank.image_names[int(image)] for image in episode.rows.support.flatten()]
        assert row["support"].replace("; ", ", ").split(", ") == images
        assert all(image.startswith(name) for image, name in zip(images, names, strict=True))
        counts = np.zeros((3, 3), int)
        for n, queries in enumerate(seen.learner.adapt(episode.support)(episode.query)[0]):
            for logits in queries:
                counts[n, int(logits.argmax())] += n != int(logits.argmax())
        pair, said = row["most_confused"].rsplit(" (", 1)
        i, j = (names.index(name) for name in pair.split(" → "))
        assert counts[i, j] == counts.max()
        assert said == f"{counts.max()} of 4)"


def test_hardest_functions_have_the_largest_errors():
    """Catches the table of the easiest functions."""
    seen = view(general(), functions())
    table = records(drawn(hardest_tasks, seen).rows)
    assert seen.scores is not None
    assert table[0]["mean_squared_error"] == seen.scores.values.max().item()
    assert {row["function"] for row in table} <= set(FAMILIES)
    assert table[0]["support"].count("(") == 4


def test_learning_rates_of_the_learner(tmp_path: Path):
    """Catches rates in another unit, unsorted, or called by another's place."""
    leo = small_leo()
    table = records(drawn(learning_rates, view(leo, data(tmp_path))).rows)
    for name, rates in (("α", leo.alpha), ("η", leo.eta)):
        mine = [row for row in table if row["rates"] == name]
        assert [row["rate"] for row in mine] == sorted(rates.tolist(), reverse=True)
        assert all(rates[row["entry"]].item() == row["rate"] for row in mine)
    multiple = general()
    (alpha, eta) = learning_rates.learned_rates(multiple).values()
    torch.testing.assert_close(alpha.values, 1e-3 * multiple.alpha)
    torch.testing.assert_close(eta.values, multiple.finetuning_lr * multiple.eta)
    assert learning_rates.learned_rates(small_leo(latent_steps=0, finetuning_steps=0)) == {}


def test_many_rates_are_thinned_out(tmp_path: Path):
    """Catches a table of a million rows, and one without the largest or the smallest."""
    learner = settled(MetaSGD(E, 300))
    table = records(drawn(learning_rates, view(learner, data(tmp_path))).rows)
    hidden = [row["rate"] for row in table if row["rates"] == "hidden layer"]
    assert len(hidden) == learning_rates.SHOWN
    every = torch.cat([learner.hidden_weight_rate.flatten(), learner.hidden_bias_rate])
    assert [hidden[0], hidden[-1]] == [every.max().item(), every.min().item()]


def test_what_a_learner_lacks_is_left_out(tmp_path: Path):
    """Catches an empty picture, and one that fails, of a learner without codes, steps or rates."""
    learner = settled(PrototypicalNetworks(E))
    of = data(tmp_path)
    with figure_style():
        assert kinds_of(view(learner, of)) == {"task_accuracies", "confusion", "hardest_tasks"}
        unmeasured = View(learner, of, torch.device("cpu"), torch.float64, None)
        assert kinds_of(unmeasured) == {"confusion"}
        assert kinds_of(view(small_leo(latent_steps=0, finetuning_steps=0), of)) == {
            "task_accuracies", "confusion", "hardest_tasks",
        }  # fmt: skip
        assert kinds_of(view(general(), functions())) == {
            "codes", "inner_steps", "task_errors", "learning_rates", "hardest_tasks",
        }  # fmt: skip


def kinds_of(seen: View) -> set[str]:
    return {name for name, draw in PICTURES.items() if draw(seen) is not None}


@pytest.mark.parametrize("count", [4, 45])
def test_any_names_of_classes_can_be_drawn(count: int, tmp_path: Path):
    """Catches a dollar that matplotlib takes for mathematics, and more classes than there are colours."""
    names = [f"${number}_{{ a long, long name of a class" for number in range(count)]
    generator = torch.Generator().manual_seed(0)
    parts = []
    for split in ("train", "val", "test"):
        labels = [f"{split}{name}" if split != "val" else name for name in names for _ in range(6)]
        embeddings = torch.randn(len(labels), E, generator=generator)
        parts.append((split, FeatureBank.from_arrays(embeddings, labels, source=split)))
    save_splits(parts, tmp_path)
    seen = view(small_leo(), data(tmp_path))
    for module in (codes, confusion):
        drawn(module, seen)
    assert drawn(hardest_tasks, seen).rows[1][-1] == ""  # these images have no names


def test_a_table_survives_what_is_in_it():
    """Catches a bar or a line break in a name that ends a cell of the table."""
    text = markdown([["rank", "class", "accuracy"], [1, "a|b\nc", 0.123456]])
    assert text == "| rank | class | accuracy |\n| --- | --- | --- |\n| 1 | a\\|b c | 0.1235 |"


def test_two_tasks_are_enough(tmp_path: Path):
    """Catches a crash where there are fewer validation tasks than are drawn."""
    seen = view(small_leo(), data(tmp_path, val_tasks=2))
    for name, draw in PICTURES.items():
        with figure_style():
            picture = draw(seen)
        assert (picture is None) == (name == "task_errors")
    single = drawn(inner_steps, view(small_leo(), data(tmp_path, val_tasks=1)))
    assert math.isnan(records(single.rows)[0]["ci95"])


def drawn(module: Any, seen: View) -> Any:
    with figure_style(), torch.inference_mode():
        picture = module.draw(seen)
        assert picture is not None
        if picture.figure is not None:
            picture.figure.draw_without_rendering()  # where a layout fails
    assert all(isinstance(value, str | int | float) for row in picture.rows for value in row)
    assert {len(row) for row in picture.rows} == {len(picture.rows[0])}
    return picture
