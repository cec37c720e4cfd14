"""The run folder: where everything that a run writes goes, and how a run is found again.

runs/<name>/<date-time>/
    config.yaml          the resolved configuration, which replays the run
    checkpoints/         best.ckpt and last.ckpt
    metrics.csv          all that was logged
    pictures/            of the training, with the numbers behind them
    results.json         what a test found, with per_task.csv beside it
"""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from leo_lightning.common.errors import InputError, check_least

CONFIG, CHECKPOINTS, PICTURES = "config.yaml", "checkpoints", "pictures"


class RunOptions:
    """Where a run goes and what it leaves there.

    Args:
        name: name of the experiment: runs go to <root>/<name>/<date-time>.
        root: folder of all runs.
        checkpoint_every: steps between two writes of last.ckpt.
        pictures_every: validations between two times that pictures of the training are drawn and logged, as
            also happens at its end; 0: none are.
        wandb: log to Weights & Biases as well: offline keeps the run on disk for `wandb sync`; online goes on
            offline if W&B cannot be reached.
        wandb_project: project the W&B run belongs to.
        wandb_entity: user or team that the project belongs to; null: whose key it is.
        wandb_checkpoints: send best.ckpt and last.ckpt to W&B, too, as training ends.
        quiet: print no banner, bars, lines or tables: only warnings and errors, on stderr. Files are written
            as ever.
    """

    def __init__(
        self,
        name: str = "leo",
        root: str = "runs",
        checkpoint_every: int = 1000,
        pictures_every: int = 10,
        wandb: Literal["off", "offline", "online"] = "off",
        wandb_project: str = "leo-lightning",
        wandb_entity: str | None = None,
        wandb_checkpoints: bool = True,
        quiet: bool = False,
    ) -> None:
        if name in ("", ".", "..") or {"/", "\0"} & set(name):
            raise InputError(f"run.name is {name!r}: it must be a name without `/`; see --run.root")
        check_least(1, {"run.checkpoint_every": checkpoint_every})
        check_least(0, {"run.pictures_every": pictures_every})
        self.name = name
        self.root = Path(root)
        self.checkpoint_every = checkpoint_every
        self.pictures_every = pictures_every
        self.wandb = wandb
        self.wandb_project = wandb_project
        self.wandb_entity = wandb_entity
        self.wandb_checkpoints = wandb_checkpoints
        self.quiet = quiet


def fresh_folder(root: Path, name: str) -> Path:
    """A run folder that does not exist yet; it is not made here."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    candidates = (root / name / (stamp if n == 1 else f"{stamp}-{n}") for n in range(1, 1000))
    return next(folder for folder in candidates if not folder.exists())


def remove_folders(made: list[Path]) -> None:
    """Take back a run folder, the first of those that were made for a run that did not begin.

    The others are its parents; another run may have begun in one of them, which stays then.
    """
    for folder in made[:1]:
        shutil.rmtree(folder, ignore_errors=True)
    for parent in made[1:]:
        with suppress(OSError):
            parent.rmdir()


def newest_checkpoint(root: Path, name: str, kind: str) -> Path | None:
    """`last` or `best` checkpoint of the newest run of this name that has one."""
    folders = sorted((root / name).glob("*/"), reverse=True) if (root / name).is_dir() else []
    paths = (folder / CHECKPOINTS / f"{kind}.ckpt" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def find_checkpoint(root: Path, name: str, kind: str) -> Path:
    """The newest checkpoint.

    Raises:
        InputError: there is none.
    """
    if path := newest_checkpoint(root, name, kind):
        return path
    raise InputError(
        f"{root / name}: no run here has a {CHECKPOINTS}/{kind}.ckpt; name one with --ckpt_path FILE "
        "(or the experiment with --run.name), or start anew without"
    )


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None if it lies elsewhere."""
    folder = checkpoint.resolve().parent.parent
    return folder if checkpoint.parent.name == CHECKPOINTS and (folder / CONFIG).is_file() else None


def git_commit() -> str | None:
    """Commit of the code that runs, marked if it was changed since; None outside a repository."""

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings of a saved configuration that have another value now."""
    for key, old in before.items():
        new = after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old} → {new}"


def written(folder: Path) -> Iterator[tuple[str, Path]]:
    """What the run has left in its folder."""
    places = {
        "checkpoint": [f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt"],
        "config": [CONFIG],
        "metrics": ["metrics.csv"],
        "results": ["results.json", "per_task.csv", "predictions.csv"],
    }
    for what, names in places.items():
        for name in names:
            if (folder / name).is_file():
                yield what, folder / name
    if (folder / PICTURES).is_dir():
        yield PICTURES, folder / PICTURES


def tested_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run that is tested: the best one, or else the last one; None if it has neither."""
    paths = (folder / CHECKPOINTS / f"{kind}.ckpt" for kind in ("best", "last"))
    return next((path for path in paths if path.is_file()), None)


def next_commands(folder: Path, flags: str) -> Iterator[str]:
    """Commands that one may run after a training.

    Args:
        folder: the run folder.
        flags: flags of a test by another protocol.
    """
    if tested := tested_checkpoint(folder):
        path = shlex.quote(str(tested))
        yield f"python train.py test --ckpt_path {path}{flags}"
        yield f"python train.py predict --ckpt_path {path}"
        yield f"python -m leo_lightning report {shlex.quote(str(folder))}"
