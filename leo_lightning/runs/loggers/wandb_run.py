"""A run on Weights & Biases: what metrics.csv and the run folder hold, sent there row by row.

metrics.csv is the truth: a resumed run cuts it at its checkpoint and goes on below. The W&B run follows it.

- A row is all that was logged of a step. It is sent when the next step's comes, under the step's own number.
- A run that begins asks how far W&B is (`starting_step`; 0 for a new run, and for any offline one) and first
  sends the rows of metrics.csv from there on. What W&B has is not sent twice: training is deterministic.
- Offline there is thus one folder with the whole run. Those of earlier processes are set aside, where
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
TABLE = "hardest_tasks"  # a picture that is one
PATIENCE = 15
"""Seconds that the server has to answer as a run begins."""
LAST_PATIENCE = 600
"""Seconds that what is left has to be sent as a run ends."""


class WandbRun(WandbLogger):
    """The W&B run of a run folder, which has all its files.

    Args:
        history: metrics.csv of the run.
        score: what chooses the best checkpoint.
        mode: whether more of it is better, `max`, or less, `min`.
        kwargs: those of Lightning's WandbLogger.
    """

    def __init__(self, history: MetricsCSV, score: str, mode: Literal["max", "min"], **kwargs: Any) -> None:
        self.history = history
        self.score = score
        self.mode: Literal["max", "min"] = mode
        self.folder = history.path.parent
        self.wandb_folder = Path(kwargs.get("dir") or self.folder) / "wandb"
        name = f"{self.folder.parent.name}-{self.folder.name}"
        run_id = _id_of(self.wandb_folder) or re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[-120:]
        ours: dict[str, Any] = {"dir": str(self.folder), "id": run_id, "name": name[-120:]}
        super().__init__(save_dir=None, **ours | kwargs)  # pyright: ignore[reportArgumentType]
        self._rows: dict[int, dict[str, Any]] = {}
        self._step = 0
        self._best: tuple[float, int] | None = None

    @classmethod
    def like(
        cls, logger: WandbLogger, history: MetricsCSV, score: str, mode: Literal["max", "min"]
    ) -> "WandbRun":
        """The same for `--trainer.logger WandbLogger`: what was set there, and ours for the rest."""
        lightnings = {"dir": ".", "project": "lightning_logs", "resume": "allow", "anonymous": None}
        given = {key: value for key, value in logger._wandb_init.items() if value != lightnings.get(key)}
        given = {"project": "leo-lightning", "log_model": logger._log_model, "prefix": logger._prefix} | given
        return cls(history, score, mode, offline=logger._offline, **given)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's own object."""
        assert self._experiment is not None, "the run has not begun"
        return self._experiment

    # Beginning and end

    def start(self, job_type: str, tags: Iterable[str], changed: bool) -> list[str]:
        """Begin the run, or go on with it, and bring it to where metrics.csv is.

        It goes on offline where W&B cannot be reached.

        Args:
            job_type: what is done: fit, test …
            tags: by which runs can be found.
            changed: whether settings are others than before the run was resumed.

        Returns:
            Where it can be seen, in lines.

        Raises:
            InputError: what was set is refused.
        """
        quiet_wandb(self.wandb_folder)
        import wandb  # takes long, and most runs do without
        from wandb.errors import Error

        patience = float(os.environ.get("WANDB_INIT_TIMEOUT", PATIENCE))
        settings = wandb.Settings(
            init_timeout=patience, finish_timeout=LAST_PATIENCE, finish_timeout_raises=True
        )
        asked = {key: value for key, value in self._wandb_init.items() if key not in ("anonymous", "resume")}
        asked = {
            "job_type": job_type,
            "tags": [tag[:64] for tag in tags if tag],
            "settings": settings,
        } | asked
        offline, lines = self._offline, []
        earlier = set(self.wandb_folder.glob("*run-*"))
        self._set_aside(earlier)
        if not offline:
            try:
                self._experiment = wandb.init(**asked, resume="allow")
            except Error as error:
                offline = True
                lines.append(f"{FALLBACK} ({reason_of(error)})")
                wandb.teardown()  # else the id would be in use
                for begun in set(self.wandb_folder.glob("run-*")) - earlier:
                    shutil.rmtree(begun, ignore_errors=True)
        if offline:
            try:
                self._experiment = wandb.init(**asked, mode="offline")
            except Error as error:
                raise InputError(
                    f"W&B: {one_line(error).rstrip('.')}; mend --run.wandb_project or --run.wandb_entity"
                ) from None
        run = self.experiment
        if run.offline:
            lines.append(f"{lines.pop() if lines else 'offline'}; send it later: {self._sync()}")
        elif run.url:
            lines.append(run.url)
        if changed and self._resumed_at < run.starting_step:
            lines.append(f"has steps up to {run.starting_step - 1} from before the change, and keeps them")
        run.define_metric(AXIS)
        run.define_metric("*", step_metric=AXIS)
        run.define_metric(f"val/{self.score}", step_metric=AXIS, summary=self.mode)
        self._send_history()
        return lines

    def finish(self, exit_code: int = 0, through: int | None = None, checkpoints: bool = False) -> list[str]:
        """Send what is left and end the run.

        Args:
            exit_code: of the command.
            through: steps whose rows are complete; those of later ones are made again by the run that goes on
                from the checkpoint. None: all are.
            checkpoints: whether to send those, too.

        Returns:
            What is to be said of it, in lines.
        """
        if self._experiment is None:
            return []
        self._send(through)
        if checkpoints:
            send_checkpoints(self.experiment, self.folder, LAST_PATIENCE)
        try:
            self._experiment.finish(exit_code)
        except TimeoutError:
            return [f"not all was sent in {LAST_PATIENCE} s; send it later: {self._sync()}"]
        finally:
            self._experiment = None
        shutil.rmtree(self._aside, ignore_errors=True)
        return []

    @property
    def _resumed_at(self) -> int:
        return self.history.resumed_at or 0

    @property
    def _aside(self) -> Path:
        return self.wandb_folder / ASIDE

    def _set_aside(self, earlier: Iterable[Path]) -> None:
        for folder in earlier:
            if folder.name.startswith("offline-run-"):
                self._aside.mkdir(exist_ok=True)
                folder.rename(self._aside / folder.name)

    def _sync(self) -> str:
        """The command that sends the run, or what of it was not sent."""
        run = self.experiment
        words = ["wandb", "sync", *([] if run.offline else ["--include-online"])]
        return shlex.join([*words, str(self.wandb_folder / Path(run.sync_dir).name)])

    # Rows

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add to the step's row; the results of a test, which are of no step, go to the summary."""
        step = self._step if step is None else step
        named = {f"{self._prefix}-{name}" if self._prefix else name: value for name, value in metrics.items()}
        if any(name.startswith("test/") for name in metrics):
            named.pop("epoch", None)
            self.experiment.summary.update(named)
            return
        self._send(step)
        self._rows.setdefault(step, {}).update(named)
        if self._is_best(step, metrics):
            self._note_best()

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Add pictures of what `step` steps have trained to the row of the last of them."""
        super().log_image(key, images, None if step is None else _last_of(step), **kwargs)

    def log_table(self, key: str, *args: Any, step: int | None = None, **kwargs: Any) -> None:
        """The same for a table."""
        super().log_table(key, *args, step=None if step is None else _last_of(step), **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the last row, if nothing has gone wrong."""
        super().finalize(status)
        if status == "success":
            self._send()

    def _send(self, before: int | None = None) -> None:
        """Send the rows of all steps before this one; None: all."""
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
            self._is_best(step, values)
            self._rows.setdefault(step, {}).update(values)
        for step, key, content in self._pictures():
            self._rows.setdefault(step, {})[key] = content
        self._send()
        self._note_best()

    def _pictures(self) -> Iterator[tuple[int, str, Any]]:
        """Row, key and content of what was drawn until the run was stopped."""
        import wandb

        for path in sorted(self.folder.glob("pictures/*/step-*.*")):
            steps, is_table = path.stem.removeprefix("step-"), path.parent.name == TABLE
            if not steps.isdigit() or int(steps) > self._resumed_at:
                continue
            row, key = _last_of(int(steps)), f"pictures/{path.parent.name}"
            if path.suffix == ".csv" and is_table:
                with path.open(newline="", encoding="utf-8") as file:
                    header, *body = csv.reader(file)
                cells = [[_number(cell) for cell in line] for line in body]
                yield row, key, wandb.Table(columns=list(header), data=cells)
            elif path.suffix == ".png" and not is_table:
                yield row, key, [wandb.Image(str(path))]

    def _is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        score = metrics.get(f"val/{self.score}", math.nan)
        before = self._best[0] if self._best else -math.inf if self.mode == "max" else math.inf
        better = score > before if self.mode == "max" else score < before
        if better:
            self._best = (float(score), step + 1)
        return better

    def _note_best(self) -> None:
        if self._best is not None:
            score, steps = self._best
            self.experiment.summary.update({f"best/{self.score}": score, "best/step": steps})


def _last_of(steps: int) -> int:
    """The row of the last of so many steps; they are numbered from 0."""
    return max(steps - 1, 0)


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _id_of(folder: Path) -> str | None:
    """Id of the run that an earlier process of this run folder has begun, by the newest of its folders."""
    found = {}
    for path in (*folder.glob("*run-*"), *folder.glob(f"{ASIDE}/*run-*")):
        if match := re.fullmatch(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)", path.name):
            found[match[1]] = match[2]
    return found[max(found)] if found else None
