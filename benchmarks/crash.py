"""Kills training again and again, resumes it each time, and compares it with a run that was never stopped.

    python -m benchmarks.crash --kills 20 --workers 2

The process kills itself with SIGKILL at exact places: in the middle of a step, of a validation, of writing a
checkpoint (the temporary file is there, the renaming is not), and right after one. Weights, the optimiser's
state and metrics.csv must be those of the other run to the last bit.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leo_lightning.__main__ import main as train_main
from leo_lightning.common import files
from leo_lightning.training.meta_learner import MetaLearner

STEPS_PER_KILL = 26
"""Steps until the latest kill of a `plan`: a training of so many for each kill does not end before them."""

SIZES = [
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.steps_per_epoch=20",
    "--data.batch_size=2",
    "--data.val_tasks=32",
    "--data.eval_batch_size=8",
    "--model.learner.num_latents=4",
    "--run.checkpoint_every=7",
]


class Kill(NamedTuple):
    """Kill the process when it comes to a place for the n-th time."""

    place: str
    time: int


def plan(kills: int, seed: int) -> list[Kill]:
    """Draw kills, each before `STEPS_PER_KILL` steps have passed since the start or the last resume."""
    chance = random.Random(seed)
    latest = {"step": STEPS_PER_KILL, "validation": 4, "write": 3, "written": 3}
    places = (list(latest) * kills)[:kills]
    chance.shuffle(places)
    return [Kill(place, chance.randint(1, latest[place])) for place in places]


def arm(kill: Kill) -> None:
    """Make this process kill itself at that place."""
    left = kill.time

    def passing() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            passing()
            return function(*args, **kwargs)

        return wrapped

    def replace(source: Path, target: Path) -> None:
        checkpoint = Path(target).suffix == ".ckpt"
        if checkpoint and kill.place == "write":
            passing()
        rename(source, target)
        if checkpoint and kill.place == "written":
            passing()

    rename = os.replace
    if kill.place == "step":
        MetaLearner.configure_gradient_clipping = before(MetaLearner.configure_gradient_clipping)
    elif kill.place == "validation":
        MetaLearner.validation_step = before(MetaLearner.validation_step)
    else:
        files.os.replace = replace


def crash(
    root: Path, kills: list[Kill], workers: int, steps: int, run: Callable[[list[str]], tuple[int, str]]
) -> Iterator[str]:
    """Train twice, once with the kills. Yields a line for each process, and then for each difference.

    Args:
        root: folder for both runs.
        kills: where to kill the second one.
        workers: loader processes.
        steps: to train.
        run: calls `train` with its arguments in a process of its own; returns exit code and output.

    Raises:
        RuntimeError: a process did not end as it should.
    """
    sizes = [f"--run.root={root}", f"--trainer.max_steps={steps}", f"--data.num_workers={workers}"]

    def start(name: str, kill: Kill | None, *arguments: str) -> None:
        place = ["--place", kill.place, "--time", str(kill.time)] if kill else []
        code, output = run([*place, "fit", *SIZES, *sizes, f"--run.name={name}", *arguments])
        if code != (-signal.SIGKILL if kill else 0):
            raise RuntimeError(f"unexpected exit code {code}:\n{output}")

    start("whole", None)
    for kill in [*kills, None]:
        last = next((root / "killed").glob("*/checkpoints/last.ckpt"), None)
        step = torch.load(last, weights_only=True)["global_step"] if last else 0
        start("killed", kill, *(["--resume=auto"] if last else []))
        fate = f"killed at {kill.place} {kill.time}" if kill else "trained to the end"
        yield f"from step {step:4}: {fate}"
        if kill and not last:  # the run folder of a process that died before its first checkpoint
            for folder in (root / "killed").glob("*/"):
                if not (folder / "checkpoints" / "last.ckpt").exists():
                    shutil.rmtree(folder)
    yield from (f"DIFFERS: {part}" for part in differences(_folder(root, "killed"), _folder(root, "whole")))


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """Parts of two run folders that differ."""
    for name in ("last", "best"):
        a, b = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for folder in (ours, theirs)
        )
        for part in ("global_step", "state_dict", "optimizer_states", "bad_steps"):
            if not _equal(a[part], b[part]):
                yield f"{part} of {name}.ckpt"
    a, b = _history(ours), _history(theirs)
    if a != b:
        yield f"metrics.csv ({len(a)} and {len(b)} lines)"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "throughput/tasks_per_second"}
            for row in csv.DictReader(file)
        ]


def _folder(root: Path, name: str) -> Path:
    (folder,) = (root / name).glob("*/")
    return folder


def run_process(arguments: list[str]) -> tuple[int, str]:
    """Call `train` in a new interpreter; exit code and output."""
    command = [sys.executable, "-m", "benchmarks.crash", "--train", *arguments]
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=here, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Run the command; 1 if the runs differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how often (default: 20)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the places (default: 0)")
    args = parser.parse_args()
    steps = STEPS_PER_KILL * (args.kills + 1)
    lines = []
    with tempfile.TemporaryDirectory() as root:
        for line in crash(Path(root), plan(args.kills, args.seed), args.workers, steps, run_process):
            print(line, flush=True)
            lines.append(line)
    different = any(line.startswith("DIFFERS") for line in lines)
    print(
        "not the same run" if different else f"{steps} steps, {args.kills} kills: the same run, bit for bit"
    )
    return int(different)


def train(args: list[str]) -> int:
    """Train with `train.py`'s arguments, until the place of a kill if --place and --time name one."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--place")
    parser.add_argument("--time", type=int)
    options, rest = parser.parse_known_args(args)
    if options.place:
        arm(Kill(options.place, options.time))
    return train_main(rest)


if __name__ == "__main__":
    sys.exit(train(sys.argv[2:]) if sys.argv[1:2] == ["--train"] else main())
