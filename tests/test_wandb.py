"""Weights & Biases, offline: what a run's file holds."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from tests.runs import folders, rows, tiny

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


def read_back(folder: Path) -> tuple[dict, set[str], str]:
    """Configuration, names of all metrics and id in the run's .wandb file, once it is written to its end."""
    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    config: dict = {}
    names: set[str] = set()
    run_id, ended = "", False
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:  # a process of W&B's own writes it
        time.sleep(0.05)
        for data in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
            names |= {item.key or ".".join(item.nested_key) for item in record.history.item}
            run_id = record.run.run_id or run_id
            ended = ended or record.WhichOneof("record_type") == "exit"
    assert ended
    return config, names, run_id


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flag", ["--run.wandb=offline", "--trainer.logger=WandbLogger"])
def test_offline_run_holds_config_and_metrics(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a W&B run without the resolved configuration, or one that writes outside its run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tiny(tmp_path / "runs", flag) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (folder,) = folders(tmp_path / "runs")
    config, names, run_id = read_back(folder)
    assert run_id == f"tiny-{folder.name}"
    flat = json.dumps(config)
    for name in ("kl_weight", "learning_rate", "max_steps", "normalize", "seed_everything", "embedding_size"):
        assert f"{name}" in flat
    logged = {name for name in rows(folder / "metrics.csv")[0] if name not in ("step", "epoch")}
    assert logged <= names


@pytest.mark.filterwarnings("ignore")
def test_resumed_run_keeps_its_id(tmp_path: Path):
    """Catches a resume that opens a second W&B run, beside the one whose curves it continues."""
    assert tiny(tmp_path, "--run.wandb=offline", command="fit") == 0
    (folder,) = folders(tmp_path)
    first = read_back(folder)[2]
    more = ["--run.wandb=offline", "--trainer.max_steps=9", "--resume=auto"]
    assert tiny(tmp_path, *more, command="fit") == 0
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    assert read_back(folder)[2] == first
