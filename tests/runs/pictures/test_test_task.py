"""The picture of a test task."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning.common.figure_style import figure_style
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.drawings import DRAWINGS
from leo_lightning.data.roots import OMNIGLOT, SHIPPED
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.runs.pictures.test_task import Task, draw, read_task
from tests.tiny_run import folders, main

TEST = ["test", "--config=configs/methods/nearest_centroid.yaml", "--data.test_tasks=4", "--run.name=one"]


@pytest.fixture(scope="module")
def data() -> EpisodeDataModule:
    module = EpisodeDataModule(OMNIGLOT, way=20, query=10)
    module.setup("test")
    return module


@pytest.fixture(scope="module")
def task(data: EpisodeDataModule) -> Task:
    found = read_task(NearestCentroid(), data, torch.empty(0))
    assert found is not None
    return found


def test_images_are_those_of_the_task(task: Task):
    """Catches a drawing beside another one's answer, and images of other classes than the names say."""
    with np.load(SHIPPED[OMNIGLOT] / DRAWINGS) as arrays:
        images, labels = arrays["images"], arrays["labels"]
        classes = [name.replace("/", "__") for name in arrays["names"].tolist()]
    for name, support, queries in zip(task.names, task.support, task.query, strict=True):
        of_class = images[[classes[label] == name for label in labels]]
        shown = [support, *queries]
        assert len({image.tobytes() for image in shown}) == 11
        assert all((image == of_class).all((1, 2)).any() for image in shown)


def test_answers_are_those_of_the_test(task: Task, data: EpisodeDataModule):
    """Catches the picture of another task, or of other embeddings."""
    episode = data.episode([0], "test", torch.device("cpu"))
    expected = NearestCentroid().adapt(episode.support)(episode.query)[0].softmax(-1)
    torch.testing.assert_close(torch.from_numpy(task.probability).float(), expected)


@pytest.mark.parametrize("way", [2, 20])
def test_every_number_of_classes_is_drawn(task: Task, way: int):
    """Catches a layout that only 20 classes fill, and a right class that is not among the likeliest."""
    fewer = Task(
        task.support[:way],
        task.query[:way],
        task.valid[:way],
        task.probability[:way, :, :way],
        task.names[:way],
        task.shot,
    )
    with figure_style():
        figure = draw(fewer, "title")
    (ax,) = figure.axes
    asked = min(10, 10 * way)
    assert len(ax.images) == way + asked * (1 + min(3, way))
    marks = [text.get_text() for text in ax.texts if text.get_text() in "✓✗"]
    right = fewer.probability.argmax(-1) == np.arange(way)[:, None]
    assert marks.count("✓") == right.T.flatten()[:10].sum()


def test_padded_queries_are_not_drawn(task: Task):
    """Catches the first image of a class in place of queries that it does not have, and a share of them."""
    valid = np.zeros_like(task.valid)
    valid[0, :3] = valid[1, 0] = True
    with figure_style():
        (ax,) = draw(task._replace(valid=valid), "title").axes
    assert len(ax.images) == len(task.names) + 4 * (1 + 3)
    assert any("of the 4 queries of this task" in text.get_text() for text in ax.texts)


def test_a_test_on_drawings_names_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a picture that is not written, or that nobody is told of."""
    assert main([*TEST, "--data.root=omniglot", f"--run.root={tmp_path}"]) == 0
    picture = folders(tmp_path, "one")[0] / "pictures" / "test_task.png"
    assert picture.is_file()
    assert f"picture    {picture}\n" in capsys.readouterr().out


@pytest.mark.parametrize("more", ["--run.pictures_every=0", "--data.test_query=all", "--data.root=synthetic"])
def test_what_has_no_picture_is_tested_without(tmp_path: Path, more: str):
    """Catches a test that needs a picture."""
    assert main([*TEST, "--data.root=omniglot", f"--run.root={tmp_path}", more]) == 0
    assert not list(tmp_path.rglob("*.png"))


def test_a_picture_that_fails_costs_no_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches drawings of other features, for which a test ends with an error and without results."""
    monkeypatch.setattr(
        "leo_lightning.runs.pictures.test_task.drawings_beside", lambda *_: np.zeros((1, 2, 2), np.uint8)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*TEST, "--data.root=omniglot", f"--run.root={tmp_path}"]) == 0
    assert "warning: no picture of the test task (index" in capsys.readouterr().err
    assert (folders(tmp_path, "one")[0] / "results.json").is_file()
