"""Learners without parameters, and learners that sample, through the command line."""

from pathlib import Path

import pytest

from tests.tiny_run import files, folders, main, results, rows, tiny

CENTROID = "--model.learner=leo_lightning.learners.centroid.NearestCentroid"


def untrained(root: Path, command: str, *args: str) -> int:
    """A tiny run of a learner that has nothing to train."""
    sizes = ["--data.test_tasks=40", "--data.val_tasks=8", "--data.predict_tasks=3", f"--run.root={root}"]
    return main([command, "--config=configs/leo.yaml", CENTROID, "--run.name=tiny", *sizes, *args])


@pytest.mark.parametrize("command", ["fit_test", "test"])
def test_what_has_nothing_to_train_is_tested_at_once(tmp_path: Path, command: str):
    """Catches a test that asks for a checkpoint which cannot be, and a training of nothing."""
    assert untrained(tmp_path, command) == 0
    (folder,) = folders(tmp_path)
    assert results(folder)["learner"] == "NearestCentroid"
    assert results(folder)["steps"] == 0
    for row in rows(folder / "per_task.csv"):
        assert row["final"] == row["nearest_centroid"]
    assert not list(folder.glob("checkpoints/*"))


def test_it_validates_and_predicts(tmp_path: Path):
    """Catches a verb that still asks for a checkpoint."""
    assert untrained(tmp_path, "validate") == 0
    assert untrained(tmp_path, "predict") == 0
    predictions = rows(folders(tmp_path)[-1] / "predictions.csv")
    assert list(predictions[0]) == ["task", "image", "class", "predicted", "probability"]
    assert len(predictions) == 3 * 5 * 15


@pytest.mark.parametrize("arguments", [("fit",), ("fit_test", "--resume=auto")])
def test_training_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple):
    """Catches a traceback out of an optimiser without parameters, and folders left behind."""
    assert untrained(tmp_path, *arguments) == 2
    error = "error: NearestCentroid has nothing to train: use `test` or `predict`, without --resume\n"
    assert capsys.readouterr().err == error
    assert not files(tmp_path)


def test_samples_are_averaged_and_their_spread_is_written(tmp_path: Path):
    """Catches an option that a checkpoint cannot be tested with, and a spread of another class."""
    assert tiny(tmp_path, command="fit") == 0
    (run,) = folders(tmp_path)
    best = f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    sampled = [best, "--model.learner.test_samples=4"]
    assert tiny(tmp_path, *sampled, command="test", name="sampled") == 0
    assert tiny(tmp_path, best, command="test", name="mean") == 0
    found, mean = (results(folders(tmp_path, name)[0]) for name in ("sampled", "mean"))
    assert found["stages"].keys() == mean["stages"].keys()
    assert found["calibration_error"] != mean["calibration_error"]
    assert 0 < found["calibration_error"] < 1
    predict = [*sampled, "--data.predict_tasks=3"]
    assert tiny(tmp_path, *predict, command="predict", name="said") == 0
    predictions = rows(folders(tmp_path, "said")[0] / "predictions.csv")
    assert list(predictions[0])[-2:] == ["probability", "spread"]
    spreads = [float(row["spread"]) for row in predictions]
    assert 0 < max(spreads) < 0.5
    assert min(spreads) >= 0


def test_unknown_classes_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches unknown classes among the methods, columns that are mixed up, and other accuracies."""
    for name, unknown in (("without", 0), ("with", 5)):
        more = ["--data.root=synthetic", f"--data.unknown={unknown}", f"--run.name={name}"]
        assert untrained(tmp_path, "test", *more) == 0
        assert ("AUROC of unknown classes" in capsys.readouterr().out) == bool(unknown)
    before, after = folders(tmp_path, "without")[0], folders(tmp_path, "with")[0]
    found = results(after)
    assert found["stages"] == results(before)["stages"]
    assert "unknown" not in results(before)
    assert list(found["unknown"]) == ["distance", "entropy", "probability"]
    tasks, columns = rows(after / "per_task.csv"), list(rows(before / "per_task.csv")[0])
    assert list(tasks[0]) == [*columns, "auroc_distance", "auroc_entropy", "auroc_probability"]
    assert [{name: row[name] for name in columns} for row in tasks] == rows(before / "per_task.csv")
    for name, scores in found["unknown"].items():
        values = [float(row[f"auroc_{name}"]) for row in tasks]
        assert scores["auroc"] == pytest.approx(sum(values) / len(values))
        assert 0 < scores["ci95"] < 0.1
