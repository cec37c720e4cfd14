"""What torch.compile needs: a compiler, and a folder for what it makes."""

import os
import shutil
from pathlib import Path

from leo_lightning.errors import InputError


def prepare_compiler(root: Path) -> None:
    """Keep what is compiled in `root`, where later runs find it.

    Raises:
        InputError: there is no C++ compiler.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise InputError("model.compile needs a C++ compiler, and there is no g++ or clang++; leave it out")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((root / ".compiled").absolute()))
