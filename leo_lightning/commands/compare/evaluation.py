"""Evaluation: the same test tasks for every method, each of them once; what was found is kept on disk.

The numbers are those of `train.py test`, except that learners trained in mixed precision are evaluated in
float32.
"""

import csv
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from leo_lightning.commands.compare.entrants import Entrant
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.training import Run
from leo_lightning.common.files import whole_file
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.learners.learner import Learner
from leo_lightning.training.checkpoint import load_learner, read_checkpoint
from leo_lightning.training.scoring import BINS, score

VERSION = 1
"""Of what is kept; another version is not read."""


@dataclass(frozen=True)
class Protocol:
    """Which tasks."""

    way: int
    shot: int
    tasks: int


@dataclass(frozen=True)
class Result:
    """What evaluation finds out about a method."""

    accuracy: Float64[Tensor, " tasks"]
    """Of each task, in the order of their numbers."""
    reliability: Float64[Tensor, "bins 3"]
    """By bin of confidence: queries, sum of confidences, hits; see `scoring.Scores`."""
    adaptation_ms: float
    """Time of `learner.adapt` for one task: median over meta-batches, divided by their tasks."""
    parameters: int
    """Numbers that training changes."""
    best_step: int | None
    """Training step of the checkpoint; None if nothing was trained."""
    machine: str
    """Where the time was taken."""


class Examiner:
    """Evaluates one method, on as many protocols as needed.

    Args:
        entrant: the method.
        run: its training; None for what is not trained.
        plan: the plan.
        features: digest of the features.
    """

    def __init__(self, entrant: Entrant, run: Run | None, plan: Plan, features: str) -> None:
        self.entrant = entrant
        self.run = run
        self.plan = plan
        self.features = features
        self._checkpoint = None if run is None else _file_digest(run.tested)
        self._learner: Learner | None = None

    def kept(self, protocol: Protocol) -> Result | None:
        """What was found before; None if nothing was."""
        path = self._path(protocol)
        try:
            found = json.loads(path.read_text())
            with path.with_suffix(".csv").open(newline="") as file:
                accuracy = [float(row["accuracy"]) for row in csv.DictReader(file)]
            if found.pop("depends_on") != self._depends_on(protocol) or len(accuracy) != protocol.tasks:
                return None
            reliability = torch.tensor(found.pop("reliability"), dtype=torch.float64)
            return Result(torch.tensor(accuracy, dtype=torch.float64), reliability, **found)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # not there, or damaged: it is found out again

    def examine(self, protocol: Protocol, show: Callable[[str], None]) -> Result:
        """Evaluate, and keep what is found.

        Args:
            protocol: which tasks.
            show: called with how far it is.
        """
        data_config, device = self.entrant.config["data"], self._device()
        data = EpisodeDataModule(
            root=None if self.plan.root is None else str(self.plan.root),
            way=protocol.way,
            shot=protocol.shot,
            query=self.plan.query,
            test_tasks=protocol.tasks,
            eval_batch_size=data_config["eval_batch_size"],
            normalize=data_config["normalize"],
            in_memory=data_config["in_memory"],
            eval_seed=self.plan.eval_seed,
        )
        data.setup("test")
        learner = self._prepared(device)
        dtype = next((p.dtype for p in learner.parameters()), torch.float32)
        accuracy, seconds = [], []
        reliability = torch.zeros(BINS, 3, dtype=torch.float64)
        done = 0
        with torch.inference_mode():
            for rows in data.test_dataloader():
                episode = data.gather(data.transfer_batch_to_device(rows, device, 0), "test")
                episode = episode.in_precision(dtype)
                _wait(device)
                started = time.perf_counter()
                classifier = learner.adapt(episode.support)
                _wait(device)
                seconds.append((time.perf_counter() - started) / len(episode.support))
                found = score({"final": classifier}, episode)
                accuracy.append(found.accuracy[:, 0].cpu())
                reliability += found.reliability.sum(0).cpu()
                done += len(rows.task)
                show(f"{done:,} of {protocol.tasks:,} tasks")
        result = Result(
            accuracy=torch.cat(accuracy),
            reliability=reliability,
            adaptation_ms=1000 * median(seconds),
            parameters=sum(p.numel() for p in learner.parameters() if p.requires_grad),
            best_step=None if self.run is None else read_checkpoint(self.run.tested)["global_step"],
            machine=machine(device),
        )
        self._keep(protocol, result)
        return result

    def _prepared(self, device: torch.device) -> Learner:
        if self._learner is None:
            learner = self.entrant.learner
            if self.run is not None:
                learner = load_learner(read_checkpoint(self.run.tested), self.run.tested)
            self._learner = learner.eval().to(device)
        return self._learner

    def _device(self) -> torch.device:
        """The one that train.py would take, of CPU and CUDA."""
        on_gpu = self.entrant.config["trainer"]["accelerator"] in ("auto", "gpu", "cuda")
        return torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")

    def _depends_on(self, protocol: Protocol) -> dict[str, Any]:
        learner = self.entrant.learner
        return {
            "version": VERSION,
            "learner": f"{type(learner).__module__}.{type(learner).__qualname__}",
            "init_args": learner.init_args(),
            "checkpoint": self._checkpoint,
            "features": self.features,
            "normalize": self.entrant.config["data"]["normalize"],
            "query": self.plan.query,
            "eval_seed": self.plan.eval_seed,
            **vars(protocol),
        }

    def _path(self, protocol: Protocol) -> Path:
        content = json.dumps(self._depends_on(protocol), sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()[:12]
        name = f"{protocol.way}way-{protocol.shot}shot-{protocol.tasks}tasks.{key}.json"
        return self.plan.out / "results" / self.entrant.method.slug / name

    def _keep(self, protocol: Protocol, result: Result) -> None:
        """Write the tasks first: the other file says that all is there."""
        path = self._path(protocol)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path.with_suffix(".csv")) as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "accuracy"])
            writer.writerows(enumerate(result.accuracy.tolist()))
        content = {name: value for name, value in vars(result).items() if name != "accuracy"}
        content |= {"reliability": result.reliability.tolist(), "depends_on": self._depends_on(protocol)}
        with whole_file(path) as part:
            part.write_text(json.dumps(content, indent=1))


def machine(device: torch.device) -> str:
    """The processor, without the name of the machine."""
    cores = os.cpu_count() or 1
    name = f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    return f"{torch.cuda.get_device_name(device)} ({name})" if device.type == "cuda" else name


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, "") or platform.processor() or platform.machine() or "unknown processor"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()
