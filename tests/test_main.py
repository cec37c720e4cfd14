"""The entry point."""

import io
import sys

import pytest

from leo_lightning.__main__ import main


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_will_do(encoding: str, monkeypatch: pytest.MonkeyPatch):
    """Catches a UnicodeEncodeError in place of a result, for want of an arrow or a file's name."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(["→"]) == 2
    print("81 ± 1 → n\udcffme", flush=True)
    sys.stderr.flush()
    assert b"unknown command" in sys.stderr.buffer.getvalue()  # pyright: ignore
    assert sys.stdout.buffer.getvalue().startswith(b"81 ")  # pyright: ignore
