"""A trained model as a folder to share: weights in safetensors, all else in JSON, and a model card.

`config.json` holds what a checkpoint records: class path and arguments of the learner, normalisation, origin,
fingerprints and class names of the features; and the results of the test, if its run has any. Nothing of a
folder is executed, and its class can only be a learner of this package, or one that is imported already.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.files import whole_file
from leo_lightning.common.version import __version__
from leo_lightning.data.feature_record import RECORD
from leo_lightning.inference.model_card import model_card
from leo_lightning.learners.learner import class_path
from leo_lightning.runs.folder import checkpoint_at, folder_of
from leo_lightning.training.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from leo_lightning.inference.trained_model import TrainedModel

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LIBRARY, FORMAT_VERSION = "leo-lightning", 1
MEAN = "normalization.mean"
LONGEST = 2**24
"""Most bytes of config.json."""


def read_model(path: Path) -> tuple[Path, dict[str, Any]]:
    """Read a checkpoint, or a folder of this format, without executing anything.

    Args:
        path: a checkpoint, a run folder, or a folder that `save_pretrained` wrote.

    Returns:
        The file that holds the weights, and its content in the form of a checkpoint.

    Raises:
        InputError: it is missing, damaged, or something else.
    """
    if not (path / CONFIG).is_file():
        path = checkpoint_at(path, "best")
        return path, read_checkpoint(path)
    config, weights = read_config(path / CONFIG), path / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; the folder is incomplete, fetch it again")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights}: damaged ({one_line(error)}); fetch it again") from None
    mean = tensors.pop(MEAN, None)
    return weights, {
        "hyper_parameters": {"learner": config["learner"]},
        "state_dict": tensors,
        RECORD: config["features"] | {"mean": mean},
    }


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        InputError: it is damaged, of another library, or of a later release.
    """
    try:
        with path.open(encoding="utf-8") as file:
            config: Any = json.loads(file.read(LONGEST))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); fetch it again") from None
    match config:
        case {
            "library": "leo-lightning",
            "format_version": int(version),
            "learner": {"class_path": str(), "init_args": dict()},
            "features": dict(),
            "results": dict(),
        }:
            if version > FORMAT_VERSION:
                raise InputError(
                    f"{path}: written by a later release, {printable(str(config.get('library_version')))}; "
                    "update leo-lightning"
                )
            return config
    raise InputError(f"{path}: not a model that save_pretrained wrote; name another folder or repository")


def save_pretrained(trained: "TrainedModel", folder: Path, place: str = "OWNER/NAME") -> None:
    """Write a trained model. Each file is written whole, and one that is there is replaced.

    Args:
        trained: the model.
        folder: where to; it is made if it is missing.
        place: what the card tells to load.

    Raises:
        InputError: a file cannot be written, or the results of the run are damaged.
    """
    record = trained.record.state()
    mean = record.pop("mean")
    learner = {"class_path": class_path(trained.learner), "init_args": trained.learner.init_args()}
    config = {
        "library": LIBRARY,
        "library_version": __version__,
        "format_version": FORMAT_VERSION,
        "learner": learner,
        "features": record,
        "results": _results(trained.path),
    }
    tensors = trained.learner.state_dict(prefix="learner.") | ({} if mean is None else {MEAN: mean})
    content = {
        WEIGHTS: save({name: tensor.contiguous() for name, tensor in tensors.items()}),
        CONFIG: json.dumps(config, indent=2).encode(),
        CARD: _card(type(trained.learner).__name__, config, place),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        with whole_file(folder / name) as part:
            part.write_bytes(data)


def _card(learner: str, config: dict[str, Any], place: str) -> bytes:
    try:
        return model_card(learner, config["features"], config["results"], place).encode()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"the results of the model's test are damaged ({one_line(error)})") from None


def _results(weights: Path) -> dict[str, Any]:
    """Results of the test of these weights: those in config.json, or the run's; {} if there are none."""
    if weights.name == WEIGHTS:
        return read_config(weights.parent / CONFIG)["results"]
    run = folder_of(weights)
    if run is None or not (run / "results.json").is_file():
        return {}
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        of_these = results["steps"] == read_checkpoint(weights)["global_step"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{run / 'results.json'}: damaged ({one_line(error)}); test again") from None
    return results if of_these else {}
