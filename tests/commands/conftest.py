"""Fixtures of the commands' tests."""

from pathlib import Path

import pytest

from tests.tiny_run import folders, tiny


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny run, trained and tested. Tests read it, and change only copies of it."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root) == 0
    return folders(root)[0]
