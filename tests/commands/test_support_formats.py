"""Support and undivided features in formats that the importers read, through the command line."""

import csv
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.tiny_run import main


def rows(classes: int) -> np.ndarray:
    """Return 4 rows of 5 numbers for each class, far from those of the others."""
    noise = np.random.default_rng(0).normal(size=(classes, 4, 5))
    return (noise + 10 * np.eye(classes, 5)[:, None]).astype(np.float32)


def test_remarks_stay_out_of_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Catches remarks on the support's columns and zeros in the table that another program reads."""
    support, query = tmp_path / "support.mat", tmp_path / "query.npz"
    embeddings = rows(3)
    np.savez(query, X=embeddings[:, 0])
    embeddings[0, 3] = 0
    labels = np.repeat(np.arange(3), 4)
    scipy.io.savemat(support, {"features": embeddings.reshape(12, 5).T, "labels": labels})
    with (tmp_path / "pipe").open("w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["classify", "--method=cl2n", f"--support={support}", f"--query={query}", "--out=-"]) == 0
    table = list(csv.DictReader((tmp_path / "pipe").read_text().splitlines()))
    assert [row["predicted"] for row in table] == ["0", "1", "2"]
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note    ")]
    assert "taking its columns for images" in notes[0]
    assert "1 of 12 embeddings are zeros" in notes[1]


def test_rows_by_class_are_divided(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches `features divide` without the formats of `features import`, and a remark that is lost."""
    embeddings = rows(5)
    embeddings[0, 3] = 0
    source = tmp_path / "all.plk"
    source.write_bytes(pickle.dumps({f"c{i}": list(each) for i, each in enumerate(embeddings)}))
    assert main(["features", "divide", str(source), str(tmp_path / "out"), "--val=c1", "--test=c2,c3"]) == 0
    assert "note: " in (printed := capsys.readouterr().out)
    assert "1 of 20 embeddings are zeros" in " ".join(printed.split())
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.safetensors")) == ["test", "train", "val"]
