"""The one module that imports learn2learn, quietly and only when asked: it takes seconds, and brings Gym."""

import contextlib
import functools
import importlib
import io
import warnings
from types import ModuleType

from leo_lightning.common.errors import require


@functools.cache
def learn2learn_module(name: str, reason: str) -> ModuleType:
    """A module of learn2learn, without what its own imports say about Gym and NumPy.

    Args:
        name: such as `algorithms`.
        reason: what needs it, for the message if it is not installed.

    Raises:
        InputError: learn2learn is not installed.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        require("learn2learn", reason)
        return importlib.import_module(f"learn2learn.{name}")
