"""Checkpoints on Weights & Biases: an artifact of a run, aliases `best` and `last`, and its way back."""

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
    """Set what W&B reads as it is imported: it says and asks nothing, and keeps its files in a folder."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own errors, to its makers
    for what in ("CACHE", "DATA", "ARTIFACT"):  # else in the home directory, or in that of the command
        os.environ.setdefault(f"WANDB_{what}_DIR", str(folder.absolute() / what.lower()))


def reason_of(error: Exception) -> str:
    """What W&B says of why something failed, without the requests that it tried."""
    text = " ".join(str(error).split()).rstrip(".")
    if match := re.search(r"returned error (\d+)", text):
        return f"the server answered {match[1]}" + (
            "; is the key right?" if match[1] in ("401", "403") else ""
        )
    last = text.rpartition(": ")[2]
    late = "deadline exceeded" in last or "respond in time" in last
    return "no answer in time" if late else printable(last)


def send_checkpoints(run: Any, folder: Path, patience: int) -> None:
    """Send best.ckpt and last.ckpt of a run folder, each with the configuration that builds its model.

    They are versions of one artifact. A version that has lost its alias to a newer one is deleted, where the
    server lets one, so that there are never more than two.

    Args:
        run: W&B's own object.
        folder: of the run.
        patience: seconds to wait for them to arrive, before older ones are deleted.
    """
    import wandb

    sent = []
    for kind in ("best", "last"):
        path = folder / CHECKPOINTS / f"{kind}.ckpt"
        if path.is_file() and (folder / CONFIG).is_file():
            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", run.id, flags=re.ASCII), type="model")
            for source, name in ((path, f"{CHECKPOINTS}/{path.name}"), (folder / CONFIG, CONFIG)):
                artifact.add_file(str(source), name, skip_cache=True, policy="immutable")
            sent.append(run.log_artifact(artifact, aliases=[kind]))
    if run.offline or run.disabled or not sent:
        return
    with suppress(Exception):  # of W&B's, of several kinds; a version too many does no harm
        for each in sent:
            each.wait(timeout=patience)
        name = f"{run.entity}/{run.project}/{sent[0].name.partition(':')[0]}"
        for version in wandb.Api().artifacts("model", name):
            if not set(version.aliases) - {"latest"}:
                version.delete(delete_aliases=True)


def fetch(reference: str, root: Path) -> Path:
    """Download a checkpoint, with its configuration, unless it was before.

    Args:
        reference: wandb:ENTITY/PROJECT/ARTIFACT:ALIAS.
        root: folder of all runs; the artifact goes to wandb/ARTIFACT-VERSION there.

    Returns:
        The checkpoint.

    Raises:
        InputError: it cannot be had.
    """
    if not re.fullmatch(rf"{SCHEME}[^/:]+/[^/:]+/[^/:]+:[^/:]+", reference):
        raise InputError(f"{reference}: is not of the form {SCHEME}ENTITY/PROJECT/ARTIFACT:best; name it so")
    require("wandb", f"--ckpt_path {SCHEME}…")
    quiet_wandb(root / "wandb")
    import wandb

    path, kept = reference.removeprefix(SCHEME), root / "wandb"
    made = [kept / "cache", kept, root]
    try:
        artifact = wandb.Api(timeout=15).artifact(path, type="model")
        folder = kept / re.sub(r"[^\w.-]", "-", artifact.name)
        if not folder.is_dir():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            artifact.download(root=str(part), skip_cache=True)
            if not _checkpoints(part):
                remove_folders([part])
                remove_folders(made)
                raise InputError(
                    f"{reference}: holds no {CHECKPOINTS}/*.ckpt and {CONFIG}; name an artifact of a run"
                )
            part.rename(folder)
    except InputError:
        raise
    except OSError as error:
        if error.strerror is None:  # of the network, in the words of a library
            raise _cannot_fetch(reference, error, made) from None
        raise
    except Exception as error:  # of W&B's and of what it is made of, of many kinds
        raise _cannot_fetch(reference, error, made) from None
    return _checkpoints(folder)[0]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / CHECKPOINTS).glob("*.ckpt")) if (folder / CONFIG).is_file() else []


def _cannot_fetch(reference: str, error: Exception, made: list[Path]) -> InputError:
    remove_folders(made)
    return InputError(
        f"{reference}: cannot be fetched ({reason_of(error)}); write {SCHEME}ENTITY/PROJECT/ARTIFACT:best, "
        "and log in with `wandb login`"
    )
