"""The one importer of learn2learn, quiet and only on demand: the import takes seconds and brings Gym."""

import contextlib
import functools
import importlib
import io
import warnings
from types import ModuleType

from leo_lightning.common.errors import require


@functools.cache
def learn2learn_module(name: str, reason: str) -> ModuleType:
    """Import a module of learn2learn, such as `algorithms`, without its warnings about Gym and NumPy.

    Raises:
        InputError: learn2learn is not installed, and `reason` needs it.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        require("learn2learn", reason)
        return importlib.import_module(f"learn2learn.{name}")
