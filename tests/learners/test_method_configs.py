"""The YAML files of the gradient-based methods name what exists."""

import importlib
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "methods"
GRADIENT = ["maml", "fomaml", "anil", "reptile", "meta_sgd", "meta_lstm"]
LEARN2LEARN = {"maml_learn2learn": "maml", "meta_sgd_learn2learn": "meta_sgd"}


def learner_of(name: str) -> dict:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert config["run"]["name"] == name
    return config["model"]["learner"]


@pytest.mark.parametrize("name", [*GRADIENT, *LEARN2LEARN])
def test_the_settings_build_the_method(name: str):
    """Catches a setting that was renamed, and the name or file of another method."""
    learner = learner_of(name)
    module, _, kind = learner["class_path"].rpartition(".")
    built = getattr(importlib.import_module(module), kind)(**learner["init_args"])
    assert built.init_args().items() >= learner["init_args"].items()
    header = (CONFIGS / f"{name}.yaml").read_text()
    assert f"--config configs/methods/{name}.yaml " in header
    assert (f"{module.replace('.', '/')}.py") in header


@pytest.mark.parametrize(("theirs", "ours"), LEARN2LEARN.items())
def test_learn2learn_runs_with_our_settings(theirs: str, ours: str):
    """Catches a comparison of two settings."""
    assert learner_of(theirs)["init_args"] == learner_of(ours)["init_args"]
