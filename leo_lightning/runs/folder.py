"""The run folder: everything that a run writes, and how to find it again.

runs/<name>/<date-time>/
    config.yaml          the resolved configuration, which replays the run
    checkpoints/         best.ckpt and last.ckpt
    metrics.csv          all logged metrics
    pictures/            pictures of the training, with the numbers behind them
    results.json         scores of a test, with per_task.csv beside it
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.program import program

CONFIG, CHECKPOINTS, PICTURES = "config.yaml", "checkpoints", "pictures"
TEST_PICTURE = f"{PICTURES}/test_task.png"


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and what it leaves there.

    Args:
        name: name of the experiment: runs go to <root>/<name>/<date-time>.
        root: folder of all runs.
        checkpoint_every: steps between two writes of last.ckpt.
        pictures_every: validations between two drawings of the pictures of the training, which are also drawn
            at its end; 0 draws none.
        wandb: log to Weights & Biases as well: offline keeps the run on disk for `wandb sync`; online goes
            on offline if W&B cannot be reached.
        wandb_project: project that the W&B run belongs to.
        wandb_entity: user or team that the project belongs to; null: the owner of the API key.
        wandb_checkpoints: send best.ckpt and last.ckpt to W&B when training ends.
        quiet: print warnings and errors only, on stderr. Files are written as always.
    """

    name: str = "leo"
    root: str = "runs"
    checkpoint_every: int = 1000
    pictures_every: int = 10
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "leo-lightning"
    wandb_entity: str | None = None
    wandb_checkpoints: bool = True
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or {"/", "\0"} & set(self.name):
            raise InputError(f"run.name is {self.name!r}: it must be a name without `/`; see --run.root")
        check_least(1, {"run.checkpoint_every": self.checkpoint_every})
        check_least(0, {"run.pictures_every": self.pictures_every})


def fresh_folder(root: Path, name: str) -> Path:
    """The path of a new run folder, which this does not make."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    candidates = (root / name / (stamp if n == 1 else f"{stamp}-{n}") for n in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())


def remove_folders(made: list[Path]) -> None:
    """Remove the folder of a run that did not begin, and its new parents unless another run is in them.

    Args:
        made: folders that were made for the run, its own first.
    """
    for folder in made[:1]:
        shutil.rmtree(folder, ignore_errors=True)
    for parent in made[1:]:
        with suppress(OSError):
            parent.rmdir()


def newest_checkpoint(root: Path, name: str, kind: str) -> Path | None:
    """The `last` or `best` checkpoint of the newest run of this name that has one.

    The newest run is the one that was begun or resumed last, when its config.yaml was written; names of
    folders change, and their times are of some time zone.
    """
    folders = [config.parent for config in (root / name).glob(f"*/{CONFIG}")]
    paths = (folder / CHECKPOINTS / f"{kind}.ckpt" for folder in folders)
    found = [path for path in paths if path.is_file()]
    return max(found, key=lambda path: (path.parents[1] / CONFIG).stat().st_mtime_ns, default=None)


def find_checkpoint(root: Path, name: str, kind: str) -> Path:
    """The `last` or `best` checkpoint of the newest run of this name that has one.

    Raises:
        InputError: no run has one.
    """
    if path := newest_checkpoint(root, name, kind):
        return path
    raise InputError(
        f"{root / name}: no run here has a {CHECKPOINTS}/{kind}.ckpt; name one with --ckpt_path FILE "
        "or the experiment with --run.name, or let --resume auto start anew with --config FILE"
    )


def checkpoint_at(path: Path, wanted: Literal["best", "last"]) -> Path:
    """Return the checkpoint at a path: the file, or the wanted one of a run folder, or else its other one.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return path
    kinds = ("best", "last") if wanted == "best" else ("last", "best")
    inside = [folder / f"{kind}.ckpt" for kind in kinds for folder in (path / CHECKPOINTS, path)]
    if checkpoint := next((file for file in inside if file.is_file()), None):
        return checkpoint
    if path.is_dir():
        raise InputError(
            f"{path}: no run folder with a {CHECKPOINTS}/best.ckpt or last.ckpt; name a checkpoint"
        )
    others = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
    advice = f"its folder holds {others}" if others else "name a best.ckpt or last.ckpt of a run"
    raise InputError(f"{path}: no such checkpoint; {advice}")


def with_advice(read: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """A reader of checkpoints whose error also names a checkpoint beside the damaged one that is whole."""

    def read_or_advise(path: Path) -> dict[str, Any]:
        try:
            return read(path)
        except InputError as error:
            for other in (path.with_name(f"{kind}.ckpt") for kind in ("last", "best")):
                with suppress(InputError):
                    if other != path and other.is_file():
                        step = read(other)["global_step"]
                        advice = f"continue from it with --ckpt_path {shlex.quote(str(other))}"
                        break
            else:
                raise
            raise InputError(f"{error}; {other} is whole, at step {step}; {advice}") from None

    return read_or_advise


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None if it lies elsewhere."""
    for path in (checkpoint.absolute(), checkpoint.resolve()):  # `checkpoints` may be a link
        folder = path.parent.parent
        if path.parent.name == CHECKPOINTS and (folder / CONFIG).is_file():
            return folder
    return None


def git_commit() -> str | None:
    """Commit of the running code, marked if the code has changes; None if no repository holds the code.

    A repository in whose environment the package is installed does not.
    """

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def written(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files in a run folder, with the kind of each."""
    places = {
        "checkpoint": [f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt"],
        "config": [CONFIG],
        "metrics": ["metrics.csv"],
        "results": ["results.json", "per_task.csv", "predictions.csv"],
        "picture": [TEST_PICTURE],
    }
    for kind, names in places.items():
        for name in names:
            if (folder / name).is_file():
                yield kind, folder / name
    if any((folder / PICTURES).glob("*/")):
        yield PICTURES, folder / PICTURES


def tested_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run that is tested: the best one, or else the last one; None if it has neither."""
    paths = (folder / CHECKPOINTS / f"{kind}.ckpt" for kind in ("best", "last"))
    return next((path for path in paths if path.is_file()), None)


def tested_steps(folder: Path) -> int | None:
    """Training steps of the checkpoint that results.json is about; None without results."""
    try:
        return json.loads((folder / "results.json").read_text())["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def next_commands(folder: Path, flags: str) -> Iterator[str]:
    """Commands that one may run after a training.

    Args:
        folder: the run folder.
        flags: flags of a test by another protocol.
    """
    if tested := tested_checkpoint(folder):
        path = shlex.quote(str(tested))
        yield f"{program()} test --ckpt_path {path}{flags}"
        yield f"{program()} predict --ckpt_path {path}"
        yield f"{program()} report {shlex.quote(str(folder))}"
