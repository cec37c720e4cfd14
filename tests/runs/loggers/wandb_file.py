"""Reads the .wandb file that an offline run leaves."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

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
    """Content of a run's .wandb file."""

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
    """Read the only .wandb file that `wandb sync` finds, once it is written to its end."""
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    content = ReadBack(wandb_internal_pb2.RunRecord())
    ended = False
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:  # a process of W&B's own writes it
        time.sleep(0.05)
        content = ReadBack(content.record)
        for data in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                content.record = record.run
            for update in (*record.run.config.update, *record.config.update):
                content.config[name_of(update)] = json.loads(update.value_json)
            if record.HasField("history"):
                row = {name_of(item): json.loads(item.value_json) for item in record.history.item}
                content.rows.append(row)
            if record.HasField("artifact") and record.artifact.type == "model":
                content.artifacts.append(record.artifact)
            for item in record.summary.update:
                *outer, last = item.nested_key or [item.key]
                inner = content.summary
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[last] = json.loads(item.value_json)
            ended = ended or record.HasField("exit")
    assert ended
    return content
