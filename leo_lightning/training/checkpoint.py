"""Checkpoints: read one without executing anything, build its learner, and check that it fits a model."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.torch_files import load_torch
from leo_lightning.learners.learner import Learner, class_path
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.training.earlier_releases import LEARNERS, modernized

LIGHTNING = "pytorch-lightning_version"  # a key of every checkpoint
_Base = TypeVar("_Base")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `MetaLearner`. Nothing in it is executed; its tensors are mapped, not copied.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a best.ckpt or last.ckpt of a run")
    content: Any = load_torch(path)
    match content:
        case {
            "global_step": int(),
            "hyper_parameters": {"learner": {"class_path": str(), "init_args": dict()}},
            "state_dict": dict(weights),
        } if all(isinstance(weight, Tensor) for weight in weights.values()):
            if re.match(r"\d+\.\d", str(content.get(LIGHTNING))):
                return content
    raise InputError(f"{path}: not a checkpoint of this application; name a best.ckpt or last.ckpt of a run")


def stored_learner(checkpoint: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return class path and arguments of the learner in a checkpoint, as this release names them.

    Raises:
        InputError: an argument that is gone has a value that this release does not have.
    """
    learner = modernized(checkpoint["hyper_parameters"]["learner"])
    return learner["class_path"], learner["init_args"]


def load_learner(checkpoint: Mapping[str, Any], path: Path) -> Learner:
    """Build the learner of a checkpoint on the CPU, in evaluation mode and in the precision of its training.

    Raises:
        InputError: names the file at `path`; the class is not a learner, or the weights do not fit it.
    """
    name, arguments = stored_learner(checkpoint)
    try:
        build = builder(name, arguments)
        with torch.device("meta"):  # compare sizes first: what the arguments ask for may not fit in memory
            check_fits(build(), checkpoint)
        with torch.random.fork_rng(devices=[]):  # the initial weights are drawn and thrown away
            learner = build()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # arguments of any kind, for any class of learner
        raise InputError(
            f"{path}: cannot build {printable(name)} from its arguments ({one_line(error)}); "
            "use another checkpoint"
        ) from None
    weights = {name.removeprefix("learner."): weight for name, weight in checkpoint["state_dict"].items()}
    if any(weight.dtype == torch.float64 for weight in weights.values()):
        learner.double()  # before loading: float32 would drop half of the digits
    learner.load_state_dict(weights)
    return learner.eval()


def builder(path: str, arguments: Mapping[str, Any]) -> Callable[[], Learner]:
    """Return a function that builds a learner, and the base learner among its arguments.

    Raises:
        InputError: there is no such class, or its module is neither of this package nor imported already.
    """
    learner = _class(path, Learner)
    parts = {
        name: partial(_class(str(value["class_path"]), BaseLearner), **value["init_args"])
        for name, value in arguments.items()
        if isinstance(value, dict) and isinstance(value.get("init_args"), dict) and "class_path" in value
    }
    return lambda: learner(**{**arguments, **{name: part() for name, part in parts.items()}})


def _class(path: str, base: type[_Base]) -> Callable[..., _Base]:
    module, _, name = path.rpartition(".")
    if module.startswith(f"{LEARNERS}.") and all(part.isidentifier() for part in module.split(".")):
        with suppress(ImportError):
            importlib.import_module(module)
    chosen = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not isinstance(chosen, type) or not issubclass(chosen, base):
        raise InputError(
            f"the checkpoint names {path!r:.99} as its learner, which is not imported; "
            "if you trust it, import its module first"
        )
    return chosen


def check_fits(learner: Learner, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another learner, or of other sizes, than the configured learner's.

    Raises:
        InputError: says which setting differs, where torch would list every tensor.
    """
    path, theirs = stored_learner(checkpoint)
    if path != class_path(learner):
        raise InputError(
            f"the checkpoint holds a {printable(path)}, the configuration a "
            f"{class_path(learner)}; leave model.learner (or --config) out"
        )
    mine = learner.init_args()
    for name in learner.starts:
        if mine.get(name) != theirs.get(name, mine.get(name)):
            raise InputError(
                f"model.learner.{name} is where training starts, and the checkpoint has learned its own "
                "value; leave it out"
            )
    size, needed = theirs.get("embedding_size"), mine.get("embedding_size")
    if size != needed:
        raise InputError(
            f"the checkpoint was trained on embeddings of size {size!r:.20}, "
            f"the data has size {needed}; use features of the same kind (--data.root)"
        )
    if _shapes(checkpoint["state_dict"]) != _shapes(learner.state_dict(prefix="learner.")):
        changed = [name for name in mine if mine[name] != theirs.get(name)]
        if not changed:
            raise InputError("the checkpoint's weights do not fit its own settings; use another checkpoint")
        raise InputError(
            "the checkpoint's weights do not fit this model; leave these settings (or --config) out: "
            f"{', '.join(changed)}"
        )


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    return {name: (weight.shape, weight.is_floating_point()) for name, weight in weights.items()}
