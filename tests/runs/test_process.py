"""What starting costs, and what it leaves alone."""

import ctypes
import os
import signal
import subprocess
import sys

import pytest

from leo_lightning.runs.process import keep_freed_memory
from tests.places import ROOT

PROGRAM = """
import sys
from leo_lightning.runs.process import import_torchmetrics
import_torchmetrics()
import leo_lightning.commands.train, torchmetrics
slow = {"learn2learn", "onnx", "timm", "torchvision", "wandb"} & sys.modules.keys()
slow |= {"matplotlib", "scipy", "sklearn"} & sys.modules.keys()
from lightning_utilities.core.imports import RequirementCache, package_available
import scipy.signal, matplotlib
print(sorted(slow), bool(RequirementCache("scipy")), package_available("scipy"), torchmetrics.Metric.__name__)
"""


def test_the_command_line_imports_nothing_that_it_does_not_use():
    """Catches seconds before every answer, and a trick that hides installed packages from others."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] True True Metric"


def test_help_that_nobody_reads():
    """Catches a traceback, or Python's own complaint, after `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "leo_lightning", "--help"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_another_c_library_is_left_alone(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    """Catches a crash where there is no glibc."""

    def missing(name: str) -> None:
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()


@pytest.mark.parametrize("module", ["train", "compare.command", "features"])
def test_a_module_of_a_verb_does_not_run_by_itself(module: str):
    """Catches `python -m leo_lightning.commands.train fit`, which would do nothing and exit with 0."""
    command = [sys.executable, "-m", f"leo_lightning.commands.{module}", "fit"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "python -m leo_lightning VERB" in done.stderr


def test_public_names_are_the_classes_of_their_modules():
    """Catches a name of the package's face that leads nowhere, or to another class."""
    import leo_lightning

    for name in leo_lightning.__all__:
        value = getattr(leo_lightning, name)
        assert name == "__version__" or (value.__name__ == name and value.__module__ != "leo_lightning")
