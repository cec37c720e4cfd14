"""The configuration and checkpoint that a command line implies."""

import shutil
from pathlib import Path

import pytest

from leo_lightning.commands.train import PROGRAM
from leo_lightning.common.errors import InputError
from leo_lightning.common.shipped import CONFIGS
from leo_lightning.common.yaml_files import read_table
from leo_lightning.runs.command_line import parse
from tests.tiny_run import folders, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training with settings of its own."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root, "--data.shot=3", "--model.learner.kl_weight=0.25", command="fit") == 0
    return folders(root)[0]


def test_training_starts_from_the_quickstart():
    """Catches `python train.py` doing something else than the quickstart."""
    command = parse(PROGRAM, "fit_test", [])
    quickstart = read_table(CONFIGS / "quickstart.yaml")
    assert command.config.model.learner.init_args.kl_weight == 0.1
    assert command.config.run.name == quickstart["run"]["name"]
    assert command.config.trainer.max_steps == quickstart["trainer"]["max_steps"]
    assert (command.fitting, command.path) == (True, None)


def test_other_features_start_from_settings_of_their_own():
    """Catches the drawings' ways, rates and run folder for features of the user's."""
    for flags in (["--data.root", "mine"], ["--data.shot=2", "--data.root=mine"]):
        config = parse(PROGRAM, "fit", flags).config
        assert (config.run.name, config.data.init_args.root, config.data.init_args.way) == ("leo", "mine", 5)
    named = parse(PROGRAM, "fit", ["--data.root=omniglot"])
    assert named.config == parse(PROGRAM, "fit", []).config


def test_another_method_has_runs_of_its_own_name():
    """Catches `--resume auto` that finds a run of another method."""
    for word in ("MAML", "leo_lightning.learners.maml.MAML"):
        command = parse(PROGRAM, "fit", ["--model.learner", word, "--model.learner.steps=2"])
        learner = command.config.model.learner
        assert (command.config.run.name, learner.init_args.steps) == ("maml", 2)
        assert learner.class_path == "leo_lightning.learners.maml.MAML"
    named = parse(PROGRAM, "fit", ["--model.learner=MAML", "--run.name=mine"])
    assert named.config.run.name == "mine"


def test_a_resumed_run_keeps_its_name(run: Path):
    """Catches a run that is renamed because its method is typed again."""
    path = run / "checkpoints" / "last.ckpt"
    for verb in ("fit", "test"):
        command = parse(PROGRAM, verb, [f"--ckpt_path={path}", "--model.learner=LEO"])
        assert command.config.run.name == "tiny"


def test_flags_win_wherever_the_configuration_stands(tmp_path: Path):
    """Catches a flag in front of --config that the file silently overrides, down to another experiment."""
    (tmp_path / "a.yaml").write_text("run: {name: file}\ndata: {shot: 2, way: 7}\n")
    (tmp_path / "b.yaml").write_text("data: {way: 9}\n")
    files = ["--config", str(tmp_path / "a.yaml"), f"-c={tmp_path / 'b.yaml'}"]
    command = parse(PROGRAM, "fit", ["--run.name", "mine", *files, "--data.shot=5"])
    arguments = command.config.data.init_args
    assert (command.config.run.name, arguments.shot, arguments.way) == ("mine", 5, 9)


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_checkpoint_brings_the_configuration_of_its_run(run: Path, verb: str):
    """Catches an evaluation, or a resumed training, with the settings of the quickstart."""
    for flags in (
        [f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"],
        ["--ckpt_path=last", f"--run.root={run.parents[1]}", "--run.name=tiny"],
    ):
        command = parse(PROGRAM, verb, [*flags, "--data.way=4"])
        arguments = command.config.data.init_args
        assert (arguments.shot, arguments.way) == (3, 4)
        assert command.config.model.learner.init_args.kl_weight == 0.25
        assert command.checkpoint is not None
        assert command.checkpoint["global_step"] == 6


def test_a_checkpoint_alone_brings_its_learner(run: Path, tmp_path: Path):
    """Catches a copied checkpoint that is tested as another method, or with other sizes."""
    path = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    learner = parse(PROGRAM, "test", [f"--ckpt_path={path}"]).config.model.learner
    assert (learner.init_args.num_latents, learner.init_args.kl_weight) == (4, 0.25)


def test_resume_needs_something_to_begin_with(run: Path, tmp_path: Path):
    """Catches `--resume auto` that starts a quickstart where there is nothing to resume."""
    with pytest.raises(InputError, match="no run here"):
        parse(PROGRAM, "fit", ["--resume=auto", f"--run.root={tmp_path}"])
    config = f"--config={run / 'config.yaml'}"
    anew = parse(PROGRAM, "fit", ["--resume=auto", config, f"--run.root={tmp_path}"])
    assert anew.path is None
    again = parse(PROGRAM, "fit", ["--resume=auto", config])
    assert again.path == run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--data.shots=5", "shot"), ("--model.learner.dropuot=1", "dropout"),
     ("--model.learning_rat=1", "model.learning_rate"), ("--shot=5", "data.shot")],
)  # fmt: skip
def test_a_misspelled_field_is_told_what_was_meant(flag: str, meant: str):
    """Catches an unknown field that is ignored, or refused without the one that looks like it."""
    with pytest.raises(InputError, match=f"unknown field .*; did you mean {meant}\\?"):
        parse(PROGRAM, "fit", [flag])
