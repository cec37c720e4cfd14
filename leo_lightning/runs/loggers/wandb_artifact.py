"""Checkpoints on Weights & Biases: a run's artifact with the aliases `best` and `last`, sent and fetched."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from leo_lightning.common.errors import InputError, printable, require
from leo_lightning.runs.folder import CHECKPOINTS, CONFIG, remove_folders

SCHEME = "wandb:"


def quiet_wandb(folder: Path) -> None:
    """Set what W&B reads on import: it prints and asks nothing, and keeps its files in `folder`."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of crashes to W&B
    for kind in ("CACHE", "DATA", "ARTIFACT"):  # else in the home or working directory
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder.absolute() / kind.lower()))


def reason_of(error: Exception) -> str:
    """W&B's reason for a failure, without the requests that it tried."""
    text = " ".join(str(error).split()).rstrip(".")
    status = re.search(r"returned error (\d+)", text)
    return f"the server answered {status[1]}" if status else printable(text.rpartition(": ")[2])


def send_checkpoints(run: Any, folder: Path, patience: int) -> None:
    """Send best.ckpt and last.ckpt of a run folder, each with the configuration that builds its model.

    They are versions of one artifact. When they have arrived, within `patience` seconds, versions that have
    lost their alias are deleted, if the server allows it, so that there are never more than two.
    """
    import wandb

    sent = []
    for alias in ("best", "last"):
        path = folder / CHECKPOINTS / f"{alias}.ckpt"
        if path.is_file() and (folder / CONFIG).is_file():
            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", run.id, flags=re.ASCII), type="model")
            for source, name in ((path, f"{CHECKPOINTS}/{path.name}"), (folder / CONFIG, CONFIG)):
                artifact.add_file(str(source), name, skip_cache=True, policy="immutable")
            sent.append(run.log_artifact(artifact, aliases=[alias]))
    if run.offline or run.disabled or not sent:
        return
    with suppress(Exception):  # of W&B, of several types; a version too many does no harm
        for artifact in sent:
            artifact.wait(timeout=patience)
        name = f"{run.entity}/{run.project}/{sent[0].name.partition(':')[0]}"
        for version in wandb.Api().artifacts("model", name):
            if not set(version.aliases) - {"latest"}:
                version.delete(delete_aliases=True)


def fetch(reference: str, root: Path) -> Path:
    """Download a checkpoint with its configuration, unless it is already there; return its path.

    Args:
        reference: wandb:ENTITY/PROJECT/ARTIFACT:ALIAS.
        root: folder of all runs; the artifact goes to wandb/ARTIFACT-VERSION in it.

    Raises:
        InputError: it cannot be fetched.
    """
    require("wandb", f"--ckpt_path {SCHEME}…")
    store = root / "wandb"
    quiet_wandb(store)
    import wandb

    part = store / ".part"
    try:
        artifact = wandb.Api(timeout=15).artifact(reference.removeprefix(SCHEME), type="model")
        folder = store / re.sub(r"[^\w.-]", "-", artifact.name)
        if not folder.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            artifact.download(root=str(part), skip_cache=True)
            if not (_checkpoints(part) and (part / CONFIG).is_file()):
                raise InputError(
                    f"{reference}: holds no {CHECKPOINTS}/*.ckpt and {CONFIG}; name an artifact of a run"
                )
            part.rename(folder)
    except Exception as error:  # of W&B and of the libraries below it, of many types
        shutil.rmtree(store / "cache", ignore_errors=True)
        remove_folders([part, store, root])
        if isinstance(error, InputError) or getattr(error, "strerror", None):  # the latter of the disk
            raise
        raise InputError(
            f"{reference}: cannot be fetched ({reason_of(error)}); "
            f"write {SCHEME}ENTITY/PROJECT/ARTIFACT:best, and log in with `wandb login`"
        ) from None
    return _checkpoints(folder)[0]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / CHECKPOINTS).glob("*.ckpt"))
