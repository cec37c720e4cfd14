"""`from leo_lightning.learners import ...`, and the examples in docstrings."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import torch

from leo_lightning import learners
from leo_lightning.learners.learner import Learner


@pytest.mark.parametrize("name", learners.__all__)
def test_every_name_can_be_imported(name: str):
    """Catches a class that moved or was renamed, and a name that lacks its module."""
    assert getattr(learners, name).__name__ == name


def test_every_method_has_a_name():
    """Catches a method that only its file knows."""
    names = set()
    for module in pkgutil.iter_modules(learners.__path__, f"{learners.__name__}."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(kind) and issubclass(kind, Learner) and kind.__module__ == module.name:
                names.add(name)
    assert {name for name in names if not name.startswith("_")} <= set(learners.__all__)
    assert learners._MODULES.keys() == set(learners.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """Catches an ImportError where hasattr wants an AttributeError."""
    assert not hasattr(learners, "NoSuchMethod")


def test_the_package_is_cheap_to_import():
    """Catches torch, which takes a second, behind every import, and names that tab completion hides."""
    program = (
        "import sys, leo_lightning; from leo_lightning import learners;"
        "missing = {*leo_lightning.__all__} - {*dir(leo_lightning)} | {*learners.__all__} - {*dir(learners)};"
        "print(missing or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["leo", "reference.leo"])
def test_examples_run(name: str):
    """Catches an example that no longer works."""
    module = importlib.import_module(f"leo_lightning.learners.{name}")
    state = torch.get_rng_state()
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    torch.set_rng_state(state)
    assert tried
    assert not failed
