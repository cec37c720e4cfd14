"""How the program says that it is called."""

import os
import sys
from pathlib import Path

import pytest

from leo_lightning.common.program import called, program


@pytest.mark.parametrize(
    ("script", "python", "path", "words"),
    [
        ("train.py", "env/bin/python", "env/bin", "python train.py"),
        ("train.py", "env/bin/python", "other", "env/bin/python train.py"),
        ("../train.py", "env/bin/python3", "env/bin", "python ../train.py"),
        ("env/bin/leo-lightning", "env/bin/python", "env/bin", "leo-lightning"),
        ("env/bin/leo-lightning", "env/bin/python", "other", "env/bin/leo-lightning"),
        ("/lib/leo_lightning/__main__.py", "env/bin/python", "env/bin", "python -m leo_lightning"),
        ("/usr/bin/pytest", "/usr/x y/python", "other", "'/usr/x y/python' -m leo_lightning"),
    ],
)
def test_printed_commands_can_be_copied(
    script: str, python: str, path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches `python train.py` in a command to copy where no such python, or no such file, is found."""
    for name in ("env/bin/python", "env/bin/leo-lightning", "other/python", "other/leo-lightning"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / path))
    monkeypatch.setattr(sys, "executable", os.path.join(tmp_path, python))
    monkeypatch.setattr(sys, "argv", [script, "fit"])
    assert program() == words


def test_records_name_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the path of somebody's environment in results.json."""
    monkeypatch.setattr(sys, "argv", ["/home/me/env/bin/leo-lightning", "fit"])
    assert called() == "leo-lightning"
    monkeypatch.setattr(sys, "argv", ["/home/me/clone/train.py"])
    assert called() == "python train.py"
