"""The figures: their numbers against learner and scoring, and what they leave on the disk."""

import csv
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leo_lightning import __main__ as program
from leo_lightning.commands.figures import adaptation, curvature, episode, latents
from leo_lightning.commands.figures.geometry import theta_steps
from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.figure_style import class_colours, figure_style
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.training.scoring import score
from tests.commands.figures.checkpoints import save_checkpoint
from tests.commands.figures.subjects import settled, small_leo, subject_of
from tests.places import ROOT
from tests.tiny_run import files, folders, rows


def records(table: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def drawn(module: Any, subject: Subject, **values: Any) -> tuple[Figure, list[dict[str, Any]]]:
    with figure_style(), torch.inference_mode():
        figure, table = module.draw(subject, **values)
        figure.draw_without_rendering()  # where a layout fails
    assert all(isinstance(value, str | int | float) for row in table for value in row)
    return figure, records(table)


def offsets(ax: Axes) -> np.ndarray:
    """All points of a panel."""
    return np.concatenate([np.asarray(dots.get_offsets()) for dots in ax.collections])


# Adaptation


@pytest.mark.parametrize(
    "settings",
    [{}, {"latent_steps": 0}, {"finetuning_steps": 0}, {"latent_steps": 0, "finetuning_steps": 0}],
    ids=str,
)
@pytest.mark.parametrize("test_query", [None, "all"])
def test_adaptation_ends_where_scoring_does(tmp_path: Path, settings: dict, test_query: str | None):
    """Catches other tasks, a stage at the wrong step, and sums in place of means."""
    subject = subject_of(tmp_path, small_leo(**settings), test_query=test_query)
    figure, table = drawn(adaptation, subject, tasks=70)  # two meta-batches
    stages = ("before_adaptation", "after_latent_steps", "final")
    scores: list = [[], []]
    for task in subject.episodes("test", range(70)):
        classifiers = subject.learner.stages(task.support)
        judged = score(classifiers, task)
        scores[0].append(judged.accuracy)
        scores[1].append(judged.cross_entropy)
    accuracy, loss = map(torch.cat, scores)
    leo, _ = subject.leo()
    T, F = leo.latent_steps, leo.finetuning_steps
    by_step = {(row["measure"], row["step"]): row for row in table}
    assert len(by_step) == len(table) == 3 * (T + F + 1)
    for column, (stage, step) in enumerate(zip(stages, (0, T, T + F), strict=True)):
        assert by_step["accuracy", step]["mean"] == pytest.approx(accuracy[:, column].mean().item()), stage
    last = by_step["query_loss", T + F]
    assert last["mean"] == pytest.approx(loss.mean().item())
    assert last["ci95"] == pytest.approx(1.96 * loss.std().item() / math.sqrt(70))
    assert [last["p25"], last["p75"]] == pytest.approx(np.quantile(loss.numpy(), [0.25, 0.75]))
    kinds = [by_step["accuracy", step]["kind"] for step in range(T + F + 1)]
    assert kinds == ["start", *["latent"] * T, *["fine-tuning"] * F]
    if T + F:
        assert by_step["support_loss", T + F]["mean"] < by_step["support_loss", 0]["mean"]
    line = figure.axes[0].lines[0].get_ydata()
    assert list(line) == pytest.approx([100 * by_step["accuracy", s]["mean"] for s in range(T + F + 1)])


def test_support_loss_is_a_mean_over_images(tmp_path: Path):
    """Catches the loss of the queries in place of the support's."""
    subject = subject_of(tmp_path)
    _, table = drawn(adaptation, subject, tasks=3)
    [task] = subject.episodes("test", range(3))
    chance = subject.learner.adapt(task.support)(task.support).log_softmax(-1)
    expected = -torch.stack([chance[:, n, :, n] for n in range(3)]).mean().item()
    assert table[-1]["measure"] == "support_loss"
    assert table[-1]["mean"] == pytest.approx(expected)


def test_a_single_task(tmp_path: Path):
    """Catches a crash where one task has no interval."""
    _, table = drawn(adaptation, subject_of(tmp_path), tasks=1)
    assert math.isnan(table[0]["ci95"])


# Latents


class TSNE:
    """Stands in for scikit-learn's, to see what it is given: keeps the first two dimensions."""

    def __init__(self, **settings: Any) -> None:
        assert settings["random_state"] == 0

    def fit_transform(self, codes: np.ndarray) -> np.ndarray:
        return codes[:, :2]


def test_latents_are_the_learners_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches test tasks, codes of one copy or of another phase, and a class that is another's."""
    monkeypatch.setattr(latents, "TSNE", TSNE)
    subject = subject_of(tmp_path, train_on_val=False)
    figure, table = drawn(latents, subject, tasks=60, highlighted="val3")
    assert len(table) == 60 * 3
    names, i = [f"val{n}" for n in range(5)], 0
    for task in subject.episodes("validate", range(60)):
        steps = subject.learner.every_step(task.support)
        z, adapted = steps.latents[0].mean(2), steps.latents[-1].mean(2)
        for b, number in enumerate(task.rows.task.tolist()):
            for n in range(3):
                row, i = table[i], i + 1
                assert (row["task"], row["class"]) == (number, names[task.rows.classes[b, n]])
                expected = [*z[b, n, :2].tolist(), *adapted[b, n, :2].tolist()]
                assert [*row.values()][2:] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    codes = [(row[f"{phase}_x"], row[f"{phase}_y"]) for phase in ("z", "adapted") for row in table]
    for ax in figure.axes:
        np.testing.assert_allclose(sorted(map(tuple, offsets(ax))), sorted(codes), atol=1e-6)
    highlighted = offsets_of(figure.axes[2].collections[-1])
    assert len(highlighted) == 2 * sum(row["class"] == "val3" for row in table)
    assert figure.axes[2].get_title() == "class val3"


def offsets_of(collection: Any) -> np.ndarray:
    return np.asarray(collection.get_offsets())


def test_one_task_and_the_usual_class(tmp_path: Path):
    """Catches a perplexity too large for few points, and a highlighted class without codes."""
    figure, table = drawn(latents, subject_of(tmp_path), tasks=1, highlighted=None)
    assert figure.axes[2].get_title() in {f"class {row['class']}" for row in table}
    assert all(math.isfinite(value) for row in table for value in [*row.values()][2:])


def test_codes_that_all_begin_alike(tmp_path: Path):
    """Catches NaN where z is 0 for all tasks."""
    _, table = drawn(latents, subject_of(tmp_path, small_leo(random_prior=True)), tasks=9, highlighted=None)
    assert all(math.isfinite(value) for row in table for value in [*row.values()][2:])


def test_names_are_set_apart():
    """Catches names that cover each other, and names moved without need."""
    places = {0: (0.0, 0.0), 1: (1.0, 0.5), 2: (1.0, 0.0), 3: (50.0, 0.0)}
    placed = latents._apart(places, 100.0)
    assert placed[3] == (50.0, 0.0)
    heights = sorted(placed[number][1] for number in range(3))
    assert all(b - a > 3.1 for a, b in itertools.pairwise(heights))


# Curvature


def test_curvature_of_several_methods(tmp_path: Path):
    """Catches other tasks for other methods, swapped percentiles, and curvature of a method without codes."""
    subject = subject_of(tmp_path)
    others = {
        "generator": checkpoint(tmp_path, "generator", small_leo(latent_steps=0)),
        "Meta-SGD": checkpoint(tmp_path, "sgd", settled(MetaSGD(6, 5, steps=4))),
    }
    _, table = drawn(curvature, subject, tasks=60, other=list(others.items()))
    panels = {(row["method"], row["panel"], row["of"]) for row in table}
    assert panels == {
        *((m, "a", of) for m in ("LEO", "generator") for of in ("z", "θ")),
        *((m, "b", "decoder") for m in ("LEO", "generator")),
        ("LEO", "c", "z"),
        *((m, "c", "θ") for m in ("LEO", "generator", "Meta-SGD")),
    }
    support = torch.cat([task.support for task in subject.episodes("test", range(60))])
    learners = {"LEO": subject.learner, "generator": small_leo(latent_steps=0)}
    learners["Meta-SGD"] = settled(MetaSGD(6, 5, steps=4))
    for label, learner in learners.items():
        expected = theta_steps(learner, support).numpy()
        mine = [row for row in table if (row["method"], row["panel"]) == (label, "c")]
        assert [row["index"] for row in mine] == list(range(1, expected.shape[1] + 1))
        tolerance = {"rtol": 1e-4} if label != "LEO" else {}  # stored in float32
        for name, level in (("median", 50), ("p5", 5), ("p95", 95)):
            values = [row[name] for row in mine]
            np.testing.assert_allclose(values, np.percentile(expected, level, axis=0), **tolerance)
        np.testing.assert_allclose([row["mean"] for row in mine], expected.mean(0), **tolerance)
    decoder = [row["median"] for row in table if (row["method"], row["panel"]) == ("LEO", "b")]
    matrix = subject.learner.decoder.weight[:6].detach().numpy()
    np.testing.assert_allclose(decoder, np.linalg.svd(matrix)[1])


def checkpoint(folder: Path, name: str, learner: Any) -> Path:
    """A checkpoint in a run folder of its own, whose tasks have another way and seed."""
    path = folder / name / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    save_checkpoint(path, learner.float())
    settings = "{root: nowhere, way: 4, shot: 1, eval_seed: 9, train_on_val: true}"
    (folder / name / "config.yaml").write_text(f"data: {settings}\n")
    return path


@pytest.mark.parametrize(
    "settings",
    [{"latent_steps": 0}, {"finetuning_steps": 0}, {"latent_steps": 0, "finetuning_steps": 0}],
    ids=str,
)
def test_curvature_without_some_steps(tmp_path: Path, settings: dict):
    """Catches a crash where a kind of step is missing, or all."""
    figure, table = drawn(curvature, subject_of(tmp_path, small_leo(**settings)), tasks=2, other=[])
    assert len(figure.axes[0].containers) == 2
    steps = [row["of"] for row in table if row["panel"] == "c"]
    defaults = {"latent_steps": 2, "finetuning_steps": 3} | settings
    assert steps == ["z"] * defaults["latent_steps"] + ["θ"] * defaults["finetuning_steps"]


def test_many_eigenvalues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a crash with too many eigenvalues for points, and a band in the wrong place."""
    monkeypatch.setattr(curvature, "POINTS", 3)
    figure, table = drawn(curvature, subject_of(tmp_path), tasks=9, other=[])
    assert not figure.axes[0].containers
    bands = [band.get_paths()[0].vertices for band in figure.axes[0].collections]
    for of, band in zip(("z", "θ"), bands, strict=True):
        mine = [row for row in table if (row["panel"], row["of"]) == ("a", of)]
        ends = {row[end] for row in mine for end in ("p5", "p95")}
        assert set(band[:, 1].round(9)) == {round(end, 9) for end in ends}


# Episode


@pytest.mark.parametrize("settings", [{}, {"test_query": "all"}, {"way": 2, "shot": 1}], ids=str)
def test_an_episode_is_what_the_learner_says(tmp_path: Path, settings: dict):
    """Catches another task, images of another class, and probabilities in another order."""
    subject = subject_of(tmp_path, **settings)
    figure, table = drawn(episode, subject, task=7)
    [task] = subject_of(tmp_path, **(settings | {"test_query": 4})).episodes("test", range(7, 8))
    bank = subject.data.bank("test")
    chance = subject.learner.adapt(task.support)(task.query).softmax(-1)[0].flatten(0, 1)
    classes = [bank.class_names[n] for n in task.rows.classes[0]]
    queries = [row for row in table if row["part"] == "query"]
    assert [row["image"] for row in queries] == [bank.image_names[n] for n in task.rows.query.flatten()]
    assert [row["class"] for row in queries] == [name for name in classes for _ in range(4)]
    shown = torch.tensor([[row[f"p({name})"] for name in classes] for row in queries])
    torch.testing.assert_close(shown, chance.float())
    assert [row["predicted"] for row in queries] == [classes[n] for n in chance.argmax(1)]
    support = [row for row in table if row["part"] == "support"]
    assert [row["image"] for row in support] == [bank.image_names[n] for n in task.rows.support.flatten()]
    mesh = figure.axes[2].collections[0].get_array()
    np.testing.assert_allclose(np.asarray(mesh).reshape(chance.shape), chance)
    wrong = sum(row["class"] != row["predicted"] for row in queries)
    images = figure.axes[0].collections
    assert [len(dots.get_offsets()) for dots in images] == [len(queries), wrong, len(support)]
    places = [(row["x"], row["y"]) for row in (*queries, *support)]
    np.testing.assert_allclose([*offsets_of(images[0]), *offsets_of(images[2])], places)


@pytest.mark.parametrize(
    ("name", "known", "short"),
    [
        ("n018_00000909.jpg", "n018", "00000909"),
        ("a/b/n018/cat.1.jpg", "n018", "cat.1"),
        ("n018.jpg", "n018", "n018"),
        (".jpg", "", ".jpg"),
        ("a_very_long_name_of_12345678.jpg", "b", "…e_of_12345678"),
        ("31", "n018", "31"),
    ],
)
def test_short_names(name: str, known: str, short: str):
    """Catches an empty name, and one that is too long."""
    assert episode._short(name, known) == short


# All of them


@pytest.mark.parametrize("count", [2, 6, 7, 20, 21, 160])
def test_class_colours(count: int):
    """Catches two classes of one colour."""
    with figure_style():
        assert len(set(map(str, class_colours(count)))) == count


@pytest.fixture
def checkpoint_path(finished_run: Path) -> Path:
    """A checkpoint of a run on synthetic features."""
    return finished_run / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("latents", "--tasks=9"),
        ("curvature", "--tasks=9"),
        ("adaptation", "--tasks=9"),
        ("episode", "--task=3"),
    ],
)
def test_files(
    name: str, more: str, checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches bytes that change, paths and dates in a file, leftover files, and an empty table."""
    out = tmp_path / "new" / "out"
    words = [name, f"--ckpt_path={checkpoint_path}", f"--out={out}", more]
    assert program.run("figures", words) == 0, capsys.readouterr().err
    assert [path.name for path in files(out)] == [f"{name}.{kind}" for kind in ("csv", "png", "svg")]
    before = {path: path.read_bytes() for path in files(out)}
    assert program.run("figures", words) == 0
    assert before == {path: path.read_bytes() for path in files(out)}
    svg = (out / f"{name}.svg").read_text()
    assert str(tmp_path) not in svg
    assert "<dc:date>" not in svg
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(out / f"{name}.csv")) > 5
    said = capsys.readouterr().out
    assert f"csv         {out / name}.csv" in said


def test_features_of_another_folder(checkpoint_path: Path, tmp_path: Path):
    """Catches an ignored --data.root."""
    assert program.run("features", ["synthesize", str(tmp_path / "other"), "--seed=5"]) == 0
    tables = []
    for extra in ([], [f"--data.root={tmp_path / 'other'}"]):
        assert (
            program.run(
                "figures", ["episode", f"--ckpt_path={checkpoint_path}", f"--out={tmp_path / 'out'}", *extra]
            )
            == 0
        )
        tables.append((tmp_path / "out" / "episode.csv").read_text())
    assert tables[0] != tables[1]


def test_the_command_and_a_test_agree(checkpoint_path: Path, tmp_path: Path):
    """Catches another protocol, other tasks and another normalisation than train.py has."""
    words = [f"--ckpt_path={checkpoint_path}", f"--run.root={tmp_path / 'runs'}", "--trainer.accelerator=cpu"]
    assert program.run("test", [*words, "--run.name=t", "--data.test_tasks=40"]) == 0
    assert (
        program.run(
            "figures", ["adaptation", f"--ckpt_path={checkpoint_path}", f"--out={tmp_path}", "--tasks=40"]
        )
        == 0
    )
    with (folders(tmp_path / "runs", "t")[0] / "per_task.csv").open() as file:
        per_task = list(csv.DictReader(file))
    accuracy = {row["step"]: row for row in rows(tmp_path / "adaptation.csv") if row["measure"] == "accuracy"}
    for stage, step in {"before_adaptation": 0, "after_latent_steps": 5, "final": 10}.items():
        expected = np.mean([float(row[stage]) for row in per_task])
        assert float(accuracy[str(step)]["mean"]) == pytest.approx(expected, abs=1e-3), stage


@pytest.mark.slow
def test_help_comes_at_once():
    """Catches imports that take seconds."""
    program = """
import sys
from leo_lightning.commands.figures.command import main
try:
    main(["curvature", "--help"])
except SystemExit:
    print(sorted({"torch", "pytorch_lightning", "matplotlib", "sklearn", "numpy"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("[]")
    assert "--other" in done.stdout
