"""Fixtures of the commands' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leo_lightning.commands.jobs.local_run import LocalLauncher
from tests.commands.jobs import forked
from tests.tiny_run import folders, tiny


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny run, trained and tested. Tests read it, and change only copies of it."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root) == 0
    return folders(root)[0]


@pytest.fixture(scope="module")
def forked_runs() -> Iterator[None]:
    """Lets `compare` and `sweep` run their trainings in forks, which saves the start of an interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalLauncher, "start", forked.start)
        yield
