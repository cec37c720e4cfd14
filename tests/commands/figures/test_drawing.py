"""A figure of a learner at hand."""

from pathlib import Path

import matplotlib
import pytest
import torch

from leo_lightning.commands.figures import adaptation, latents
from leo_lightning.commands.figures.drawing import Drawing
from leo_lightning.commands.figures.subject import Subject
from leo_lightning.common.errors import InputError
from leo_lightning.common.figure_style import figure_style
from leo_lightning.learners.leo import LEO
from tests.commands.figures.subjects import small_leo, subject_of


def test_a_learner_at_hand_is_drawn_as_its_checkpoint_would_be(tmp_path: Path):
    """Catches rounding to float32, dropout, and a change of the learner."""
    learner = small_leo(dropout=0.5).float().train()
    subject = subject_of(tmp_path)
    same = Subject("x", small_leo(dropout=0.5).float().double(), subject.data)
    drawing = Drawing.of(adaptation, learner, subject.data, tasks=7)
    with figure_style():
        assert drawing.rows == adaptation.draw(same, tasks=7)[1]
    assert learner.training
    assert {parameter.dtype for parameter in learner.parameters()} == {torch.float32}


def test_a_notebook_shows_the_figure_alone(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Catches thousands of numbers and a progress line in a notebook, and a style that leaks out."""
    settings = dict(matplotlib.rcParams)
    subject = subject_of(tmp_path)
    drawing = Drawing.of(latents, subject.learner, subject.data, tasks=8)
    picture = drawing._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert picture == drawing._repr_png_()
    assert len(repr(drawing)) < 100
    assert capsys.readouterr().out == ""
    assert dict(matplotlib.rcParams) == settings


def test_a_figure_of_another_learner_is_refused(tmp_path: Path):
    """Catches a message about a checkpoint where there is none."""
    subject = subject_of(tmp_path)
    learner = LEO(embedding_size=6, num_latents=4, latent_steps=0)
    with pytest.raises(InputError, match="the learner: takes no latent steps"):
        Drawing.of(latents, learner, subject.data)
