"""Where things lie."""

import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
SHARED = ROOT.parent / "shared"
"""Data that may not be copied into the project; tests that need it skip where it is absent."""


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]
