"""A run on Weights & Biases: the contents of metrics.csv and the run folder, sent row by row.

metrics.csv is the truth: a resumed run cuts it at its checkpoint and appends to it. The W&B run follows it.

- A row holds everything that was logged at a step. It is sent, under the step's own number, when the next
  step logs.
- A run that begins asks how far W&B is (`starting_step`; 0 for a new run and for any offline run) and first
  sends the rows of metrics.csv from there on. Nothing is sent twice: training is deterministic.
- Offline, one folder therefore holds the whole run. The folders of earlier processes are set aside, where
  `wandb sync` does not look, until the new one is complete.
"""

import csv
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.loggers.wandb_artifact import quiet_wandb, reason_of, send_checkpoints

AXIS = "trainer/global_step"
ASIDE = "superseded"
FALLBACK = "offline in place of online"
TABLE = "hardest_tasks"  # the one picture that is a table
PATIENCE = 15
"""Seconds that the server has to answer when a run begins."""
LAST_PATIENCE = 600
"""Seconds that the remaining rows have to be sent when a run ends."""


class WandbRun(WandbLogger):
    """The W&B run of a run folder; all its files stay there.

    `score` and `mode` tell which step is the best; `kwargs` are for Lightning's WandbLogger.
    """

    def __init__(self, history: MetricsCSV, score: str, mode: Literal["max", "min"], **kwargs: Any) -> None:
        self.history = history
        self.score = score
        self.mode: Literal["max", "min"] = mode
        self.folder = history.path.parent
        self.wandb_folder = Path(kwargs.get("dir") or self.folder) / "wandb"
        self._aside = self.wandb_folder / ASIDE
        name = f"{self.folder.parent.name}-{self.folder.name}"[-120:]
        run_id = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
        defaults: dict[str, Any] = {"dir": str(self.folder), "id": run_id, "name": name}
        super().__init__(save_dir=None, **defaults | kwargs)  # pyright: ignore[reportArgumentType]
        self._rows: dict[int, dict[str, Any]] = {}
        self._step = 0
        self._best = -math.inf if mode == "max" else math.inf

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's own object."""
        assert self._experiment is not None, "the run has not begun"
        return self._experiment

    # Beginning and end

    def start(self, job_type: str, tags: Iterable[str], changed: bool) -> list[str]:
        """Begin or continue the run, offline if W&B cannot be reached, and catch up with metrics.csv.

        Args:
            job_type: the verb.
            tags: to find the run by.
            changed: whether settings were changed when the run was resumed.

        Returns:
            Lines to print: where to see the run, or how to send it later.

        Raises:
            InputError: W&B refuses a setting.
        """
        quiet_wandb(self.wandb_folder)
        import wandb  # slow, and most runs do without
        from wandb.errors import Error

        patience = float(os.environ.get("WANDB_INIT_TIMEOUT", PATIENCE))
        options: dict[str, Any] = {
            "job_type": job_type,
            "tags": [tag[:64] for tag in tags if tag],
            "settings": wandb.Settings(
                init_timeout=patience, finish_timeout=LAST_PATIENCE, finish_timeout_raises=True
            ),
        } | {key: value for key, value in self._wandb_init.items() if key not in ("anonymous", "resume")}
        where, earlier = "offline", set(self.wandb_folder.glob("*run-*"))
        for folder in earlier:
            if folder.name.startswith("offline-run-"):
                self._aside.mkdir(exist_ok=True)
                folder.rename(self._aside / folder.name)
        try:
            if not self._offline:
                self._experiment = wandb.init(**options, resume="allow")
        except Error as error:
            where = f"{FALLBACK} ({reason_of(error)})"
            wandb.teardown()  # else the id would be in use
            for begun in set(self.wandb_folder.glob("run-*")) - earlier:
                shutil.rmtree(begun, ignore_errors=True)
        try:
            if self._experiment is None:
                self._experiment = wandb.init(**options, mode="offline")
        except Error as error:
            raise InputError(
                f"W&B: {one_line(error).rstrip('.')}; change --run.wandb_project or --run.wandb_entity"
            ) from None
        run = self.experiment
        lines = [f"{where}; send it later: {self._sync()}"] if run.offline else [run.url] if run.url else []
        if changed and (self.history.resumed_at or 0) < run.starting_step:
            lines.append(f"has steps up to {run.starting_step - 1} from before the change, and keeps them")
        run.define_metric(AXIS)
        run.define_metric("*", step_metric=AXIS)
        run.define_metric(f"val/{self.score}", step_metric=AXIS, summary=self.mode)
        self._send_history()
        return lines

    def finish(self, exit_code: int = 0, through: int | None = None, checkpoints: bool = False) -> list[str]:
        """Send the remaining rows, and the checkpoints if asked to; end the run, and return lines to print.

        Only the rows of the first `through` steps are sent; None: all rows. Later ones are not complete, and
        the run that resumes from the checkpoint logs them again.
        """
        if self._experiment is None:
            return []
        self._send(through)
        if checkpoints:
            send_checkpoints(self.experiment, self.folder, LAST_PATIENCE)
        try:
            self._experiment.finish(exit_code)
        except TimeoutError:
            return [f"not everything was sent within {LAST_PATIENCE} s; send it later: {self._sync()}"]
        finally:
            self._experiment = None
        shutil.rmtree(self._aside, ignore_errors=True)
        return []

    def _sync(self) -> str:
        """Command that sends the run, or its unsent part."""
        run = self.experiment
        words = ["wandb", "sync", *([] if run.offline else ["--include-online"])]
        return shlex.join([*words, str(self.wandb_folder / Path(run.sync_dir).name)])

    # Rows

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add to the step's row; the results of a test, which belong to no step, go to the summary."""
        step = self._step if step is None else step
        named = {f"{self._prefix}-{name}" if self._prefix else name: value for name, value in metrics.items()}
        if any(name.startswith("test/") for name in metrics):
            named.pop("epoch", None)
            self.experiment.summary.update(named)
            return
        self._send(step)
        self._rows.setdefault(step, {}).update(named)
        self._note_best(step, metrics)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Add pictures of what `step` steps have trained to the row of the last of these steps."""
        super().log_image(key, images, None if step is None else _last_of(step), **kwargs)

    def log_table(self, key: str, *args: Any, step: int | None = None, **kwargs: Any) -> None:
        """Add a table in the same way."""
        super().log_table(key, *args, step=None if step is None else _last_of(step), **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the last row, if nothing has gone wrong."""
        super().finalize(status)
        if status == "success":
            self._send()

    def _send(self, before: int | None = None) -> None:
        """Send the rows of all steps, or only of steps before one."""
        run = self.experiment
        for step in sorted(self._rows):
            if before is None or step < before:
                row = self._rows.pop(step)
                if step >= run.starting_step:
                    run.log(row | {AXIS: step}, step=step, commit=True)
                self._step = step

    def _send_history(self) -> None:
        for row in self.history.rows:
            values = {name: float(text) for name, text in row.items() if text and name != "step"}
            step = int(row["step"])
            self._rows.setdefault(step, {}).update(values)
            self._note_best(step, values)
        for step, key, content in self._pictures():
            self._rows.setdefault(step, {})[key] = content
        self._send()

    def _pictures(self) -> Iterator[tuple[int, str, Any]]:
        """Step, key and content of the pictures that were drawn before the run was stopped."""
        import wandb

        for path in sorted(self.folder.glob("pictures/*/step-*.*")):
            steps, is_table = path.stem.removeprefix("step-"), path.parent.name == TABLE
            if not steps.isdigit() or int(steps) > (self.history.resumed_at or 0):
                continue
            step, key = _last_of(int(steps)), f"pictures/{path.parent.name}"
            if path.suffix == ".csv" and is_table:
                with path.open(newline="", encoding="utf-8") as file:
                    header, *body = csv.reader(file)
                cells: Any = [[_number(cell) for cell in line] for line in body]
                yield step, key, wandb.Table(columns=list(header), data=cells)
            elif path.suffix == ".png" and not is_table:
                yield step, key, [wandb.Image(str(path))]

    def _note_best(self, step: int, metrics: Mapping[str, float]) -> None:
        score = metrics.get(f"val/{self.score}", math.nan)
        if score > self._best if self.mode == "max" else score < self._best:
            self._best = float(score)
            self.experiment.summary.update({f"best/{self.score}": self._best, "best/step": step + 1})


def _last_of(steps: int) -> int:
    """Number of the last of so many steps, counted from 0."""
    return max(steps - 1, 0)


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
