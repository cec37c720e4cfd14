"""Quiet: leave out notes of libraries that help nobody."""

import logging
import sys
import threading
import warnings
from typing import Any

from leo_lightning.common.errors import without_controls


def quiet() -> None:
    """Leave out notes that libraries print in every run, and print warnings on one line."""
    for name in (
        "pytorch_lightning.utilities.rank_zero",
        "lightning_fabric.utilities.seed",
        "lightning_fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*callbacks used to create the checkpoint need to be provided",  # evaluation saves nothing
        ".*Checkpoint directory .* exists and is not empty",  # a resumed run
        ".*sync_dist=True.* when logging on epoch level",  # all processes log the accuracy of all tasks
        ".*treespec, LeafSpec.* is deprecated",  # Lightning's own use of torch
        "IProgress not found",  # tqdm's, in a notebook without widgets
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.showwarning = _show_warning
    threading.excepthook = _show_thread_error


def _show_thread_error(failed: threading.ExceptHookArgs) -> None:
    if not isinstance(failed.exc_value, OSError):  # TensorBoard's thread, whose error the main thread raises
        threading.__excepthook__(failed)


def _show_warning(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    print(f"warning: {without_controls(' '.join(str(message).split()))}", file=sys.stderr)
