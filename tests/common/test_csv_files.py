"""CSV files of a run."""

from pathlib import Path

from leo_lightning.common.csv_files import read_rows


def test_half_a_line_is_left_out(tmp_path: Path):
    """Catches 0.8 read for 0.8333 while a run writes, which may make it the best trial of a search."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,val/accuracy\n1,0.5\n3,0.8")
    assert read_rows(path) == [{"step": "1", "val/accuracy": "0.5"}]
    assert read_rows(tmp_path / "none.csv") == []
