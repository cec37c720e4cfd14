"""Verbs in child processes: exit codes, error lines, and how a child is stopped."""

from pathlib import Path

import pytest

from leo_lightning.commands import child_runs
from leo_lightning.commands.child_runs import failure, last_line, run_child
from tests.commands.sweep.sweeps import TINY
from tests.places import ROOT
from tests.tiny_run import rows


def test_a_refusal_is_the_last_line(tmp_path: Path):
    """Catches a lost exit code or error line, stderr in stdout, and files that are begun anew."""
    output, errors = tmp_path / "output.txt", tmp_path / "errors.txt"
    errors.write_text("before\n")
    code = run_child(["fit", "--trainer.max_stepz=1"], output, errors)
    assert code == 2
    assert "max_stepz" in failure(code, errors)
    assert not failure(code, errors).startswith("error: ")
    assert errors.read_text().startswith("before\n")
    assert output.read_text() == ""


@pytest.mark.parametrize(("patience", "code"), [(60.0, 143), (0.0, -9)])
def test_a_child_is_stopped(patience: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a child that is killed although it could save, and one that is waited for without end."""
    monkeypatch.setattr(child_runs, "PATIENCE", patience)
    words = ["fit", f"--config={ROOT / 'configs' / 'leo.yaml'}", *TINY, "--trainer.max_steps=1000000"]
    log = tmp_path / "log.txt"

    def validated() -> bool:
        return any(row["val/accuracy"] for path in tmp_path.glob("a/*/metrics.csv") for row in rows(path))

    ended = run_child([*words, f"--run.root={tmp_path}", "--run.name=a"], log, log, validated)
    assert ended == code
    if code == 143:
        assert "SIGTERM: stopped; saved at step" in last_line(log)
        assert len(list(tmp_path.glob("a/*/checkpoints/last.ckpt"))) == 1
    else:
        assert failure(ended, log) == "ended by SIGKILL"


def test_the_last_line_is_not_blank_and_short(tmp_path: Path):
    """Catches blank lines at the end, half a letter at the start, and control characters of a terminal."""
    path = tmp_path / "log.txt"
    path.write_text("é" * 5000 + "\n\x1b[31mred\n \n")
    assert last_line(path) == "?[31mred"
    path.write_text("é" * 5000)
    assert len(last_line(path)) == 200
    path.write_text("")
    assert last_line(path) == ""
    assert failure(1, path) == "ended with exit code 1"
