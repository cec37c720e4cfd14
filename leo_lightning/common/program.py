"""How this program was called, so that the commands it prints can be copied."""

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "leo-lightning"


def called() -> str:
    """Return the program as any machine calls it: `python train.py`, `leo-lightning` or `python -m …`."""
    names = {"train.py": "python train.py", SCRIPT: SCRIPT}
    return names.get(Path(sys.argv[0]).name, "python -m leo_lightning")


def program() -> str:
    """Return the program as it can be called here, with the path of what is not on PATH."""
    words = called().split()
    if words == [SCRIPT]:
        return _findable(sys.argv[0])
    return shlex.join([_findable(sys.executable, "python"), *(words[1:] if words[2:] else sys.argv[:1])])


def _findable(path: str, name: str | None = None) -> str:
    """Return a program's name if a shell finds it at this path, else the path, from here if it is below."""
    found = shutil.which(name or Path(path).name)
    if found and os.path.dirname(os.path.abspath(found)) == os.path.dirname(os.path.abspath(path)):
        return name or Path(path).name
    near = os.path.relpath(path)
    return path if near.startswith("..") else near
