"""The figure of sampled functions: against the learner, the ideal observer and least squares."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from leo_lightning.commands.figures import regression
from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import figure_style
from leo_lightning.data.function_data import FunctionDataModule
from leo_lightning.data.functions import sample_functions, sample_points
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.training.ideal_observer import predict
from tests.commands.figures.subjects import settled

TASKS, SAMPLES = 400, 4


def subject(learner: Any) -> Subject:
    return Subject.of(settled(learner), FunctionDataModule())


def small() -> GeneralLEO:
    return GeneralLEO(
        2, base=MLPRegressor(1, (3,)), num_latents=2, encoder_sizes=(3,), decoder_sizes=(3,),
        latent_steps=1, finetuning_steps=1, latent_lr=1e-3, code_std=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> tuple[Subject, Figure, list[dict[str, Any]]]:
    """The figure of a small learner, and its table."""
    mine = subject(small())
    with figure_style():
        figure, table = regression.draw(mine, tasks=TASKS, samples=SAMPLES)
        figure.draw_without_rendering()
    return mine, figure, [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def test_samples_are_the_learners(drawn: tuple[Subject, Figure, list[dict[str, Any]]]):
    """Catches samples of another task, a function for another x, and noise in the true function."""
    mine, figure, table = drawn
    tasks = list(dict.fromkeys(row["task"] for row in table))
    assert len(tasks) == 4
    for ax, task in zip(figure.axes, tasks, strict=True):
        points = [row for row in table if row["task"] == task and row["what"] == "function"]
        x = torch.tensor([row["x"] for row in points], dtype=torch.float64)
        support = sample_points([task], 0, "test", 5, 1, 0.3).support.double()
        query = torch.stack([x, 0 * x], dim=1)[None, None]
        for number, sample in enumerate(mine.learner.samples(support, SAMPLES)):
            theirs = [row[f"sample_{number}"] for row in points]
            np.testing.assert_allclose(sample(query)[0, 0, :, 0].numpy(), theirs)
            np.testing.assert_allclose(ax.lines[number].get_ydata(), theirs)
        truth = sample_functions([task], 0, "test")(x[None])[0]
        np.testing.assert_allclose([row["value"] for row in points], truth.numpy())
        seen = [(row["x"], row["value"]) for row in table if row["task"] == task and row["what"] == "support"]
        np.testing.assert_allclose(seen, support[0, 0].numpy())


def test_clear_and_ambiguous_tasks(drawn: tuple[Subject, Figure, list[dict[str, Any]]]):
    """Catches a family, or a belief, of another task; panels in another order."""
    _, figure, table = drawn
    panels = {row["task"]: (row["family"], row["p_sine"]) for row in table}
    assert [family for family, _ in panels.values()] == ["sine", "line", "sine", "line"]
    beliefs = [belief for _, belief in panels.values()]
    assert beliefs[0] >= 0.999
    assert beliefs[1] <= 0.001
    assert all(0.3 <= belief <= 0.7 for belief in beliefs[2:])
    support = sample_points(list(panels), 0, "test", 5, 1, 0.3).support[:, 0]
    np.testing.assert_allclose(predict(support, support[..., 0], 0.3).weight[:, 0], beliefs, atol=1e-5)
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.partition(",")[0] for title in titles] == [
        "clear sine", "clear line", "ambiguous sine", "ambiguous line",
    ]  # fmt: skip


def test_the_closest_family_by_least_squares():
    """Catches families that are mixed up, lines through the origin only, and a family for any function."""
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    functions = [2 * (x - 1).sin() + 0.1 * x, 0.5 * x + 3 + 0.1 * x.sin(), x.cos() - 0.05, (3 * x).sin()]
    assert regression._families(torch.stack(functions)[None], x).tolist() == [[0, 1, 0, 2]]


@pytest.mark.parametrize(
    ("make", "options", "line"),
    [
        (lambda: MAMLRegression(2, (3,)), {}, "this figure is about LEO for functions"),
        (small, {"tasks": 2}, "--tasks is 2: no clear|ambiguous .* is among them; raise it"),
    ],
)
def test_refusals(make: Any, options: dict[str, int], line: str):
    """Catches an empty panel, and a learner without samples that fails in the middle."""
    with pytest.raises(InputError, match=line), figure_style():
        regression.draw(subject(make()), **options)
