"""Checkpoints: read without executing anything, the learner inside, and whether it fits a configuration."""

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from packaging.version import InvalidVersion, Version
from torch import Tensor

from leo_lightning.common.errors import InputError, printable
from leo_lightning.common.torch_files import load_torch
from leo_lightning.learners.learner import Learner, class_path
from leo_lightning.learners.parts.base_learner import BaseLearner

LIGHTNING = "pytorch-lightning_version"  # a checkpoint's key
LEARNERS = "leo_lightning.learners"
_Kind = TypeVar("_Kind")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint of ours holds, its tensors mapped rather than read; nothing in it is executed.

    Raises:
        InputError: the file is damaged, holds more than weights and plain values, or is none of ours.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a best.ckpt or last.ckpt of a run")
    checkpoint = load_torch(path)
    if not _is_ours(checkpoint):
        raise InputError(f"{path}: no checkpoint of this application; name a best.ckpt or last.ckpt of a run")
    try:
        Version(checkpoint[LIGHTNING])
    except InvalidVersion:
        raise InputError(f"{path}: is of no known version of Lightning; use another checkpoint") from None
    return checkpoint


def _is_ours(checkpoint: object) -> TypeGuard[dict[str, Any]]:
    """Whether it holds what every checkpoint of ours does."""
    if not isinstance(checkpoint, dict):
        return False
    settings, weights = checkpoint.get("hyper_parameters"), checkpoint.get("state_dict")
    learner = settings.get("learner") if isinstance(settings, dict) else None
    return (
        isinstance(checkpoint.get("global_step"), int)
        and isinstance(checkpoint.get(LIGHTNING), str)
        and isinstance(learner, dict)
        and isinstance(learner.get("class_path"), str)
        and isinstance(learner.get("init_args"), dict)
        and isinstance(weights, dict)
        and all(isinstance(weight, torch.Tensor) for weight in weights.values())
    )


def stored_learner(checkpoint: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class path and arguments of the learner in a checkpoint.

    Raises:
        InputError: the checkpoint does not name them.
    """
    learner = checkpoint["hyper_parameters"].get("learner")
    learner = learner if isinstance(learner, dict) else {}
    path, arguments = learner.get("class_path"), learner.get("init_args")
    if not isinstance(path, str) or not isinstance(arguments, dict):
        raise InputError("the checkpoint does not say which learner it holds; use one of this application")
    return path, arguments


def builder(path: str, arguments: Mapping[str, Any]) -> Callable[[], Learner]:
    """What builds the learner that a checkpoint names, and the base learner among its arguments.

    Raises:
        InputError: there is no such class, or it lies in a module that is not imported.
    """
    learner = _class(path, Learner)
    parts = {
        name: partial(_class(str(value["class_path"]), BaseLearner), **value["init_args"])
        for name, value in arguments.items()
        if isinstance(value, dict) and isinstance(value.get("init_args"), dict) and "class_path" in value
    }
    return lambda: learner(**{**arguments, **{name: part() for name, part in parts.items()}})


def _class(path: str, kind: type[_Kind]) -> Callable[..., _Kind]:
    """The class of this name. Only modules of this package are imported for it."""
    module, _, name = path.rpartition(".")
    if module.startswith(f"{LEARNERS}.") and all(part.isidentifier() for part in module.split(".")):
        with suppress(ImportError):
            importlib.import_module(module)
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not isinstance(found, type) or not issubclass(found, kind):
        raise InputError(
            f"the checkpoint names {path!r:.99} as its learner, which is none that is imported; "
            "import its module first if you trust it"
        )
    return found


def check_fits(learner: Learner, weights: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> None:
    """Refuse weights of another learner or of other sizes by name, before torch lists every tensor.

    Args:
        learner: the one that is configured.
        weights: those of the model around it, by name.
        checkpoint: what `read_checkpoint` returned.

    Raises:
        InputError: says which setting differs.
    """
    path, theirs = stored_learner(checkpoint)
    if path != class_path(learner):
        raise InputError(
            f"the checkpoint holds a {printable(path)}, the configuration a "
            f"{class_path(learner)}; use the config.yaml of the checkpoint's run"
        )
    mine = learner.init_args()
    size, needed = theirs.get("embedding_size"), mine.get("embedding_size")
    if size != needed:
        raise InputError(
            f"the checkpoint was trained on embeddings of size {size!r:.20}, "
            f"the data has size {needed}; use features of the same kind (--data.root)"
        )
    kinds = {name: (x.shape, x.is_floating_point()) for name, x in weights.items()}
    stored = {
        name: (x.shape, x.is_floating_point()) if isinstance(x, Tensor) else None
        for name, x in checkpoint["state_dict"].items()
    }
    if kinds != stored:
        changed = [name for name in mine if mine[name] != theirs.get(name)]
        what = f"{', '.join(changed)} differ" if changed else "it has others"
        raise InputError(
            f"the checkpoint's weights do not fit this model; {what}: "
            "use the config.yaml of the checkpoint's run"
        )
