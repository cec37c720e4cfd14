"""The flags of a run, and the help about them."""

from pathlib import Path

import pytest
from jsonargparse import get_loader

from leo_lightning import learners
from leo_lightning.commands.train import train_parser
from leo_lightning.learners.catalogue import methods
from leo_lightning.learners.reptile import Reptile

REPTILE = f"{Reptile.__module__}.{Reptile.__name__}"


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--model.learner.help=LEO"], "--model.learner.kl_weight"),
        (["--data.help", "--run.name=x"], "--data.shot"),
        (["--model.learner.help", "leo_lightning.learners.MAML"], "--model.learner.inner_lr"),
    ],
)
def test_help_about_a_class(flags: list[str], field: str, capsys: pytest.CaptureFixture[str]):
    """Catches the help of an abstract class, which lists nothing, where no class is named."""
    with pytest.raises(SystemExit) as end:
        train_parser("fit").parse_args(flags)
    assert end.value.code in (0, None)
    assert field in capsys.readouterr().out


def test_help_without_a_method_lists_them(capsys: pytest.CaptureFixture[str]):
    """Catches a method that the list lacks."""
    with pytest.raises(SystemExit) as end:
        train_parser("fit").parse_args(["--model.learner.help", "--run.name=x"])
    assert end.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [method.name for method in methods()]


@pytest.mark.parametrize(
    ("flags", "content"),
    [
        (["--model.learner=Reptile", "--model.learner.steps=3"], "{}"),
        (["--model.learner.class_path=Reptile", "--model.learner.steps=3"], "{}"),
        (["--model.learner.steps=3"], "model: {learner: Reptile}"),
        ([], "model: {learner: {class_path: Reptile, init_args: {steps: 3}}}"),
    ],
)
def test_a_method_by_its_short_name(flags: list[str], content: str, tmp_path: Path):
    """Catches a form that needs the path, and config.yaml with a name that may change."""
    (tmp_path / "a.yaml").write_text(content)
    learner = train_parser("fit").parse_args([f"--config={tmp_path / 'a.yaml'}", *flags]).model.learner
    assert (learner.class_path, learner.init_args.steps) == (REPTILE, 3)


def test_only_a_named_method_is_imported(monkeypatch: pytest.MonkeyPatch):
    """Catches a short name that only works in a process that has imported its class already."""
    imported: list[str] = []
    monkeypatch.setattr(learners, "__getattr__", imported.append)
    parse = get_loader("yaml")
    assert parse("learner: Reptile  # and not MAMLs") == {"learner": "Reptile"}
    assert imported == ["Reptile"]
