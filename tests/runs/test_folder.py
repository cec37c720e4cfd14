"""The folders of runs: which one is the newest."""

import os
from pathlib import Path

from leo_lightning.runs.folder import newest_checkpoint


def test_the_newest_run_is_the_one_that_began_last(tmp_path: Path):
    """Catches an order by name: clocks are set back, time zones differ, and folders are renamed."""
    begun = ["2026-10-25_02-59-59", "2026-10-25_02-00-00-2", "2026-10-25_02-00-00-10", "a", "2026-01-01", "z"]
    for second, name in enumerate(begun):
        checkpoints = tmp_path / "leo" / name / "checkpoints"
        checkpoints.mkdir(parents=True)
        (checkpoints.parent / "config.yaml").touch()
        os.utime(checkpoints.parent / "config.yaml", (second, second))
        if name != "z":  # stopped before its first checkpoint
            (checkpoints / "last.ckpt").touch()
        newest = name if name != "z" else "2026-01-01"
        assert (
            newest_checkpoint(tmp_path, "leo", "last") == tmp_path / "leo" / newest / "checkpoints/last.ckpt"
        )
