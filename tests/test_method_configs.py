"""The configurations of the methods."""

import importlib
from pathlib import Path

import pytest
import yaml

from leo_lightning.learners.learner import Learner

CONFIGS = sorted((Path(__file__).parents[1] / "configs" / "methods").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_builds_its_method(path: Path):
    """Catches a class that moved, an argument that it lacks, and a run under another method's name."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    learner = config["model"]["learner"]
    module, _, name = learner["class_path"].rpartition(".")
    built = getattr(importlib.import_module(module), name)(**learner.get("init_args", {}))
    assert isinstance(built, Learner)
    assert built.trained == bool(list(built.parameters()))
    assert config["run"]["name"] == path.stem
