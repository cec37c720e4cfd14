"""The one importer of learn2learn, quiet and only on demand: the import takes seconds and brings Gym."""

import contextlib
import functools
import importlib
import io
import warnings
from types import ModuleType

from leo_lightning.common.errors import InputError

# without its dependencies: one that nothing here uses (qpth) forbids NumPy 2
INSTALL = (
    "pip install gym==0.26.2 && "
    "pip install --no-deps --config-settings=--build-option=build_ext learn2learn==0.2.0"
)


@functools.cache
def learn2learn_module(name: str, reason: str) -> ModuleType:
    """Import a module of learn2learn, such as `algorithms`, without its warnings about Gym and NumPy.

    Raises:
        InputError: learn2learn is not installed, and `reason` needs it.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(f"learn2learn.{name}")
        except ImportError:
            raise InputError(f"{reason} needs the package learn2learn: {INSTALL}") from None
