"""Weights & Biases, offline: the content of a run's file."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from leo_lightning.runs.folder import git_commit
from tests.child import start
from tests.runs.loggers.wandb_file import read_back
from tests.runs.long_run import command, steps_of, wait_for
from tests.tiny_run import folders, main, results, rows, tiny


def history_of(folder: Path) -> list[dict[str, Any]]:
    """metrics.csv, a row for each step, without the test."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows(folder / "metrics.csv"):
        if not row.get("test/accuracy"):
            numbers = {key: float(text) for key, text in row.items() if text and key != "step"}
            merged.setdefault(int(row["step"]), {"trainer/global_step": int(row["step"])}).update(numbers)
    return list(merged.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flag", ["--run.wandb=offline", "--trainer.logger=WandbLogger"])
def test_offline_run_holds_config_and_metrics(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a W&B run that does not say what it was, lacks rows or results, or lies outside its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "DATA", "ARTIFACT"):
        monkeypatch.delenv(f"WANDB_{name}_DIR", raising=False)
    assert tiny(tmp_path / "runs", flag) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (folder,) = folders(tmp_path / "runs")
    run = read_back(folder)
    assert run.record.run_id == f"tiny-{folder.name}"
    assert run.record.project == "leo-lightning"
    assert run.record.job_type == "fit_test"
    assert set(run.record.tags) == {"synthetic", "5-way", "1-shot", "LEO"}
    flat = json.dumps(run.config)
    for name in ("kl_weight", "learning_rate", "max_steps", "normalize", "seed_everything", "embedding_size"):
        assert f"{name}" in flat
    assert run.config["provenance"]["dataset"] == "synthetic"
    assert run.config["commit"] == git_commit()
    assert run.history == history_of(folder)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    scores = [row["val/accuracy"] for row in run.history if "val/accuracy" in row]
    assert run.summary["best/accuracy"] == max(scores) == run.summary["val/accuracy"]["max"]
    assert run.summary["best/step"] == best["global_step"]
    assert run.summary["test/accuracy"] == pytest.approx(results(folder)["accuracy"], abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_resumed_run_is_whole_in_one_folder(tmp_path: Path):
    """Catches a resume that opens a second run, or leaves its first rows or pictures in another folder."""
    assert tiny(tmp_path, "--run.wandb=offline", command="fit") == 0
    (folder,) = folders(tmp_path)
    first = read_back(folder)
    for name, step in (("codes", 3), ("codes", 9), ("hardest_tasks", 6)):
        path = folder / "pictures" / name / f"step-{step:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
        path.with_suffix(".csv").write_text("task,accuracy,classes\n7,0.25,cat dog\n")
    more = ["--run.wandb=offline", "--trainer.max_steps=9", "--resume=auto", "--run.wandb_project=other"]
    assert tiny(tmp_path, *more, command="fit") == 0
    run = read_back(folder)
    assert run.record.run_id == first.record.run_id
    assert run.history == history_of(folder)
    assert [row["trainer/global_step"] for row in run.history] == list(range(9))
    keys = {"pictures/codes": "_type", "pictures/hardest_tasks": "_type"}
    at = {key: [row["_step"] for row in run.rows if f"{key}.{kind}" in row] for key, kind in keys.items()}
    assert at == {"pictures/codes": [2], "pictures/hardest_tasks": [5]}  # step 9 is to come, in this run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_killed_and_resumed_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches rows that W&B had not written yet when it was killed, and those of steps taken again."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of an earlier run here, which would outlive the kill
    child = start(*command(tmp_path, "--run.wandb=offline"))
    wait_for(child, tmp_path, "tiny/*/metrics.csv", 12)
    child.kill()
    child.wait()
    (folder,) = folders(tmp_path)
    resumed_at = steps_of(folder / "checkpoints" / "last.ckpt")
    more = ["--run.wandb=offline", f"--trainer.max_steps={resumed_at + 3}", "--resume=auto"]
    assert tiny(tmp_path, *more, command="fit") == 0
    run = read_back(folder)
    assert run.history == history_of(folder)
    assert [row["trainer/global_step"] for row in run.history] == list(range(resumed_at + 3))


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_are_one_artifact(tmp_path: Path):
    """Catches checkpoints that are not sent, lack their configuration, or lose `best` or `last`."""
    assert tiny(tmp_path, "--run.wandb=offline", command="fit") == 0
    (folder,) = folders(tmp_path)
    sent = read_back(folder).artifacts
    assert [(artifact.name, artifact.type, set(artifact.aliases)) for artifact in sent] == [
        (f"tiny-{folder.name}", "model", {kind, "latest"}) for kind in ("best", "last")
    ]
    for artifact, kind in zip(sent, ("best", "last"), strict=True):
        held = {entry.path: Path(entry.local_path).read_bytes() for entry in artifact.manifest.contents}
        assert held == {
            name: (folder / name).read_bytes() for name in ("config.yaml", f"checkpoints/{kind}.ckpt")
        }
    other = tmp_path / "other"
    assert tiny(other, "--run.wandb=offline", "--run.wandb_checkpoints=false", command="fit") == 0
    assert read_back(folders(other)[0]).artifacts == []


class FakeArtifact:
    """The artifact of a run folder; W&B's own is made by its server only."""

    name = "tiny:v3"
    source = Path()
    downloads = 0

    def __init__(self, path: str, type: str) -> None:
        assert (path, type) == ("somebody/few-shot/tiny:best", "model")

    def download(self, root: str, skip_cache: bool) -> str:
        type(self).downloads += 1
        for name in ("config.yaml", "checkpoints/best.ckpt"):
            Path(root, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.source / name, Path(root, name))
        return root


def test_checkpoint_of_wandb_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a downloaded checkpoint that is tested without the settings of its run, or fetched twice."""
    assert tiny(tmp_path, "--model.learner.num_latents=5") == 0
    (folder,) = folders(tmp_path)
    monkeypatch.setattr(FakeArtifact, "source", folder)
    monkeypatch.setattr("wandb.Api", lambda timeout: SimpleNamespace(artifact=FakeArtifact))
    for _ in range(2):
        wanted = "--ckpt_path=wandb:somebody/few-shot/tiny:best"
        assert main(["test", wanted, f"--run.root={tmp_path}", "--run.name=again"]) == 0
    assert FakeArtifact.downloads == 1
    assert (tmp_path / "wandb" / "tiny-v3" / "checkpoints" / "best.ckpt").is_file()
    again = [results(path)["accuracy"] for path in folders(tmp_path, "again")]
    assert again == [results(folder)["accuracy"]] * 2
