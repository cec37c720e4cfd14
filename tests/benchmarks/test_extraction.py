"""The benchmark of extraction; nothing here is timed."""

import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks import extraction


def test_everything_is_measured_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a row that does not run, shares that are not of the whole, and images left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(extraction, "KINDS", (extraction.Kind("jpg", 40, 50), extraction.Kind("png", 30, 30)))
    threads = torch.get_num_threads()
    works = [extraction.Work("conv-4", 6, 2), extraction.Work("resnet-12", 2, 2)]
    extraction.main(["--threads", "1", "--workers", "1", "--network", "conv-4"], works, different=3)
    torch.set_num_threads(threads)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ conv-4")]
    assert [row.split("│")[2].split(",")[0].strip() for row in rows] == ["jpg 50 × 40", "png 30 × 30"]
    for row in rows:
        shares = [float(cell.strip().rstrip("%")) for cell in row.split("│")[5:8]]
        assert sum(shares) == pytest.approx(100, abs=0.2)
        assert min(shares) > 0
    assert not list(tmp_path.glob("leo-*"))
