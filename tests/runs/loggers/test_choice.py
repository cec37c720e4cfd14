"""Loggers that are missing, or that cannot begin."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers.logger import DummyLogger

from leo_lightning.common.errors import InputError
from leo_lightning.runs.loggers.choice import beginning
from tests.tiny_run import folders, tiny


def test_tensorboard_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a training that is refused for want of a package that it can do without, or that hides it."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert tiny(tmp_path, command="fit") == 0
    assert "note    no log for TensorBoard, which is not installed" in capsys.readouterr().out
    (folder,) = folders(tmp_path)
    assert not (folder / "tensorboard").exists()
    assert (folder / "metrics.csv").is_file()


def test_a_logger_that_cannot_begin_is_one_line(monkeypatch: pytest.MonkeyPatch):
    """Catches the 125 lines of a server that is not there, and the minutes until they come."""
    patience = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.delenv(patience, raising=False)
    retries: list[str] = []

    class Unreachable(DummyLogger):
        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            retries.append(os.environ[patience])
            raise RuntimeError("API request failed\nMax retries exceeded")

    logger = Unreachable()
    for expected in ("2", "5"):
        with (
            pytest.raises(
                InputError, match=r"Unreachable cannot begin \(API request failed Max retries"
            ) as it,
            beginning(logger),
        ):
            logger.log_hyperparams({})
        assert "\n" not in str(it.value)
        assert retries.pop() == expected
        assert os.environ.get(patience) == (None if expected == "2" else "5")
        monkeypatch.setenv(patience, "5")  # what the user has set wins
