"""Evaluation: the same test tasks for every method; results are kept on disk and not computed twice.

The numbers are those of `train.py test`, except that learners trained in mixed precision are evaluated in
float32.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from leo_lightning.commands.compare.entrants import Entrant
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.training import Run, step_of
from leo_lightning.common.files import whole_file
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.learners.learner import check_predictions
from leo_lightning.training.checkpoint import load_learner, read_checkpoint
from leo_lightning.training.scoring import BINS, score

VERSION = 2
"""Format of a kept result, part of its file name."""


class Protocol(NamedTuple):
    """Which test tasks."""

    way: int
    shot: int
    tasks: int
    dirichlet: int = 0
    """Concentration of the division of queries among classes; 0: equal numbers."""


@dataclass(frozen=True)
class Result:
    """Result of an evaluation."""

    accuracy: Float64[Tensor, " tasks"]
    """In the order of the task numbers."""
    reliability: Float64[Tensor, "bins 3"]
    """Queries, sum of confidences and hits by bin of confidence; see `scoring.Scores`."""
    adaptation_ms: float
    """Time of `learner.adapt` per task, with the answers if it is transductive: median over meta-batches."""
    parameters: int
    """Count of the numbers that training changes."""
    best_step: int | None
    """Training step of the checkpoint; None if nothing was trained."""
    machine: str
    """Processor on which the time was measured."""


@dataclass(frozen=True)
class Examiner:
    """Evaluates one method by any protocol."""

    entrant: Entrant
    run: Run | None
    """None for a method without training."""
    plan: Plan

    def kept(self, protocol: Protocol) -> Result | None:
        """Return the result of an earlier evaluation; None if it is missing, damaged or out of date."""
        try:
            content = json.loads(self._path(protocol).read_text())
            for name in ("accuracy", "reliability"):
                content[name] = torch.tensor(content[name], dtype=torch.float64)
            return Result(**content)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def examine(self, protocol: Protocol, show: Callable[[str], None]) -> Result:
        """Evaluate the method and keep the result; `show` is called with the progress."""
        tasks = {"way": protocol.way, "shot": protocol.shot, "test_tasks": protocol.tasks}
        tasks |= {"test_query": None, "unknown": 0, "query_dirichlet": protocol.dirichlet}
        data = EpisodeDataModule(**(self.entrant.config["data"] | tasks))
        data.setup("test")
        on_gpu = self.entrant.config["trainer"]["accelerator"] in ("auto", "gpu", "cuda")
        device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        learner = self.entrant.learner
        if self.run is not None:
            learner = load_learner(read_checkpoint(self.run.tested), self.run.tested)
        learner = learner.eval().to(device)
        dtype = next((p.dtype for p in learner.parameters()), torch.float32)
        accuracy, seconds, done = [], [], 0
        reliability = torch.zeros(BINS, 3, dtype=torch.float64)
        with torch.inference_mode():
            for rows in data.test_dataloader():
                episode = data.gather(data.transfer_batch_to_device(rows, device, 0), "test")
                episode = episode.in_precision(dtype)
                wait()
                started = time.perf_counter()
                classifier = learner.adapt(episode.support)
                wait()
                adapted = time.perf_counter()
                scores = score({"final": classifier}, episode)
                if learner.transductive:  # which begins to work when it sees the queries
                    wait()
                    adapted = time.perf_counter()
                seconds.append((adapted - started) / len(episode.support))
                check_predictions(scores.cross_entropy)
                accuracy.append(scores.accuracy[:, 0].cpu())
                reliability += scores.reliability.cpu()
                done += len(rows.task)
                show(f"{done:,} of {protocol.tasks:,} tasks")
        result = Result(
            accuracy=torch.cat(accuracy),
            reliability=reliability,
            adaptation_ms=1000 * median(seconds),
            parameters=sum(p.numel() for p in learner.parameters() if p.requires_grad),
            best_step=None if self.run is None else step_of(self.run.tested),
            machine=_machine(device),
        )
        content = vars(result) | {name: vars(result)[name].tolist() for name in ("accuracy", "reliability")}
        path = self._path(protocol)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(json.dumps(content, indent=1))
        return result

    def _path(self, protocol: Protocol) -> Path:
        """Return the file of a result, whose name depends on everything that the result depends on."""
        learner = self.entrant.learner
        depends_on = {
            "version": VERSION,
            "learner": f"{type(learner).__module__}.{type(learner).__qualname__}",
            "init_args": learner.init_args(),
            "checkpoint": None if self.run is None else self.run.sha256,
            "features": self.entrant.features,
            "normalize": self.entrant.config["data"]["normalize"],
            "query": self.plan.query,
            "eval_seed": self.plan.eval_seed,
        }
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
        unequal = f"-dirichlet{protocol.dirichlet}" if protocol.dirichlet else ""
        name = f"{protocol.way}way-{protocol.shot}shot-{protocol.tasks}tasks{unequal}.{key}.json"
        return self.plan.out / "results" / self.entrant.method.slug / name


def _machine(device: torch.device) -> str:
    """Name the processors, not the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = f"{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return f"{torch.cuda.get_device_name(device)} ({name})" if device.type == "cuda" else name
