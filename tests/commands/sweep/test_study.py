"""Where the trials of a search are kept."""

from pathlib import Path

import pytest

from leo_lightning.commands.sweep.study import open_search, without_password
from leo_lightning.commands.sweep.sweep_file import read_sweep
from leo_lightning.common.errors import InputError
from tests.commands.sweep.sweeps import tiny_sweep

RATE = {"model.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}}


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_processes_share_a_storage_elsewhere(kind: str, tmp_path: Path):
    """Catches a second study for the second process, other values there, and a study.db beside it."""
    sweep = read_sweep(tiny_sweep(tmp_path, RATE))
    storage = str(tmp_path / "trials.log") if kind == "journal" else f"sqlite:///{tmp_path}/trials.db"
    one, two = (open_search(sweep, tmp_path / "out", [], 0, storage=storage) for _ in range(2))
    alone = open_search(sweep, tmp_path / "alone", [], 0)
    drawn = []
    for search in (one, two):
        with search._next_trial(3) as trial:
            assert trial is not None
            drawn.append(trial.params)
            search.study.tell(trial, 0.5)
    for values in drawn:
        with alone._next_trial(3) as trial:
            assert trial is not None
            assert trial.params == values
            alone.study.tell(trial, 0.5)
    assert [trial.number for trial in two.trials()] == [0, 1]
    assert not (tmp_path / "out" / "study.db").exists()
    with pytest.raises(InputError, match="holds a search out of another folder"):
        open_search(sweep, tmp_path / "elsewhere" / "out", [], 0, storage=storage)
    assert not (tmp_path / "elsewhere" / "out").exists()
    with pytest.raises(InputError, match="its search is kept elsewhere"):
        open_search(sweep, tmp_path / "out", [], 0)
    with pytest.raises(InputError, match=r"its search is in study\.db"):
        open_search(sweep, tmp_path / "alone", [], 0, storage=storage)


def test_a_password_is_not_shown():
    """Catches a password in best.yaml, in messages, or in those of a URL that is mistyped."""
    assert without_password("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    assert "secret" not in without_password("post gresql:/://me:secret@")
    assert without_password("shared/trials.log") == "shared/trials.log"
