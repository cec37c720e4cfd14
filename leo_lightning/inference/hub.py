"""Trained models on the Hugging Face hub, or on another one that HF_ENDPOINT names."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leo_lightning.common.errors import InputError, one_line, require
from leo_lightning.inference.pretrained import CONFIG, WEIGHTS, read_config, save_pretrained
from leo_lightning.inference.trained_model import TrainedModel


def fetch(name: str, revision: str | None = None) -> Path:
    """Download a model, or use what was downloaded before if the hub cannot be reached; return its folder.

    Only config.json and, if that is of this library, the weights are downloaded.

    Args:
        name: OWNER/NAME.
        revision: branch, tag or commit; None: the newest.

    Raises:
        InputError: there is no such model, or it cannot be fetched.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name}: no such folder, and not the OWNER/NAME of a model on the hub")
    with _api(name, "fetched") as api:
        config = Path(api.hf_hub_download(name, CONFIG, revision=revision))
        read_config(config)
        api.hf_hub_download(name, WEIGHTS, revision=config.parent.name)  # of the same commit
    return config.parent


def push(trained: TrainedModel, name: str, private: bool | None = None) -> str:
    """Upload a model, and make its repository if there is none; return its address.

    Args:
        trained: the model.
        name: OWNER/NAME.
        private: whether a new repository is private; None: as is usual for its owner.

    Raises:
        InputError: the hub cannot be reached, or refuses it.
    """
    with TemporaryDirectory() as folder, _api(name, "pushed") as api:
        save_pretrained(trained, Path(folder), name)
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Upload by leo-lightning")
    return str(url)


@contextmanager
def _api(name: str, what: str) -> Iterator[Any]:
    """The hub, without progress bars and warnings, and with errors of one line."""
    require("huggingface_hub", "a model on the hub")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loud, log = not are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = log.level
    disable_progress_bars()
    log.setLevel(logging.ERROR)  # five lines of retries
    try:
        yield HfApi(library_name="leo-lightning")
    except InputError:
        raise
    except Exception as error:  # of huggingface_hub and of the libraries below it, of many types
        reason = one_line(error).partition(" Please ")[0].rstrip(".")
        raise InputError(
            f"{name}: cannot be {what} ({reason}); check the name, the network, and `hf auth login`"
        ) from None
    finally:
        log.setLevel(level)
        if loud:
            enable_progress_bars()
