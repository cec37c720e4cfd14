"""A training that goes on until it is stopped, for the tests of stopping and resuming."""

import time
from pathlib import Path

import torch

from tests.child import Child
from tests.tiny_run import TINY


def command(root: Path, *args: str, steps: int = 10**6, verb: str = "fit") -> list[str]:
    """The arguments of `train.py`: a checkpoint every 7 steps, a validation every 20."""
    return [
        verb, *TINY, f"--trainer.max_steps={steps}", "--data.steps_per_epoch=20",
        "--run.checkpoint_every=7", f"--run.root={root}", "--run.name=tiny", *args,
    ]  # fmt: skip


def wait_for(child: Child, root: Path, pattern: str, lines: int) -> None:
    """Wait until a file of the run has so many lines."""
    deadline = time.monotonic() + 120
    while not any(path.read_bytes().count(b"\n") >= lines for path in root.glob(pattern)):
        assert child.poll() is None, child.output()
        assert time.monotonic() < deadline, child.output()
        time.sleep(0.002)


def steps_of(path: Path) -> int:
    """Steps that a checkpoint has trained."""
    return torch.load(path, weights_only=True)["global_step"]
