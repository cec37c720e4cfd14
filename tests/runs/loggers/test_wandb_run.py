"""Weights & Biases, offline: what a run's file holds."""

import json
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from wandb.proto import wandb_internal_pb2

from leo_lightning.runs.folder import git_commit
from tests.runs.test_resume import command, start, steps_of, wait_for
from tests.tiny_run import folders, main, results, rows, tiny

BLOCK = 32768


def records(path: Path) -> Iterator[bytes]:
    """Records of a .wandb file: 7 bytes, then LevelDB's log format (blocks of 32 KiB, 7-byte headers)."""
    data = path.read_bytes()
    assert data.startswith(b":W&B")
    position, parts = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # too little room for a header: the block's rest is padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


@dataclass
class ReadBack:
    """What is in a run's .wandb file."""

    record: wandb_internal_pb2.RunRecord
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[wandb_internal_pb2.ArtifactRecord] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows without pictures and W&B's own columns."""
        return [
            {key: value for key, value in row.items() if not key.startswith(("_", "pictures/"))}
            for row in self.rows
        ]


def name_of(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def read_back(folder: Path) -> ReadBack:
    """The only .wandb file that `wandb sync` finds, once it is written to its end."""
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    found = ReadBack(wandb_internal_pb2.RunRecord())
    ended = False
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:  # a process of W&B's own writes it
        time.sleep(0.05)
        found = ReadBack(found.record)
        for data in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                found.record = record.run
            for update in (*record.run.config.update, *record.config.update):
                found.config[name_of(update)] = json.loads(update.value_json)
            if record.HasField("history"):
                row = {name_of(item): json.loads(item.value_json) for item in record.history.item}
                found.rows.append(row)
            if record.HasField("artifact") and record.artifact.type == "model":
                found.artifacts.append(record.artifact)
            for item in record.summary.update:
                *outer, last = item.nested_key or [item.key]
                inner = found.summary
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[last] = json.loads(item.value_json)
            ended = ended or record.HasField("exit")
    assert ended
    return found


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


@pytest.mark.filterwarnings("ignore")
def test_killed_and_resumed_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches rows that W&B had not written yet when it was killed, and those of steps taken again."""
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of an earlier run here, which would outlive the kill
    process = start(command(tmp_path, "--run.wandb=offline"))
    wait_for(process, tmp_path, "tiny/*/metrics.csv", 12)
    process.kill()
    process.communicate()
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
    assert [(each.name, each.type, set(each.aliases)) for each in sent] == [
        (f"tiny-{folder.name}", "model", {kind, "latest"}) for kind in ("best", "last")
    ]
    for each, kind in zip(sent, ("best", "last"), strict=True):
        held = {entry.path: Path(entry.local_path).read_bytes() for entry in each.manifest.contents}
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
    again = [results(each)["accuracy"] for each in folders(tmp_path, "again")]
    assert again == [results(folder)["accuracy"]] * 2
