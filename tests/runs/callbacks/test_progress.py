"""Progress at a terminal, in a pipe, and none when quiet."""

import fcntl
import io
import math
import os
import re
import select
import signal
import struct
import termios
from pathlib import Path
from unittest import mock

import pytest
import pytorch_lightning as pl
from rich.console import Console

from leo_lightning.runs.callbacks.progress import RunProgress
from tests.child import start
from tests.tiny_run import TINY, files, folders, tiny

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
NUMBERS = r"loss \d\.\d{3}  accuracy \d\.\d{3}  val \d\.\d{3}  best \d\.\d{3}  [\d,.]+ tasks/s"


def terminal(columns: int, root: Path, *args: str, interrupt: str = "") -> tuple[int, str]:
    """Train at a terminal of so many columns, with Ctrl-C once it shows a text; exit code and output."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    child = start(
        "fit", *TINY, f"--run.root={root}", *args,
        environment=environment | {"TERM": "xterm-256color"}, terminal=os.ttyname(its),
    )  # fmt: skip
    written = b""
    while True:
        ended = child.poll() is not None  # asked before the output is read, so that none is missed
        if select.select([ours], [], [], 0.05)[0]:
            written += os.read(ours, 65536)
            if interrupt and interrupt in written.decode(errors="replace"):
                child.send_signal(signal.SIGINT)
                interrupt = ""
        elif ended:
            break
    os.close(its)
    os.close(ours)
    return child.wait(), written.decode()


def lines(written: str) -> list[str]:
    """Everything that was drawn, line by line, including lines that were drawn over."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written))


@pytest.mark.slow
def test_a_terminal_of_80_columns(tmp_path: Path):
    """Catches numbers that are cut, folded lines, a missing last score, a hidden cursor."""
    code, written = terminal(80, tmp_path)
    assert code == 0
    drawn = [line.rstrip() for line in lines(written)]
    bars = [line for line in drawn if line.startswith(("training ", "validation ", "loss "))]
    assert any(re.fullmatch(r"training   ━{24} 6/6 0:00:\d\d 0:00:00 left", line) for line in bars), bars
    assert any(line.startswith("validation ━") for line in bars)
    assert max(map(len, bars)) <= 80
    assert re.fullmatch(NUMBERS, [line for line in bars if line.startswith("loss")][-1])
    assert written.count(HIDE) == written.count(SHOW) >= 1
    assert written.rindex(HIDE) < written.rindex(SHOW)
    (folder,) = folders(tmp_path, "leo")
    assert any(line.endswith(f" report {folder}") for line in drawn)


@pytest.mark.slow
def test_a_narrow_terminal_and_ctrl_c(tmp_path: Path):
    """Catches a number on another line than its name, and Ctrl-C that leaves the cursor hidden."""
    code, written = terminal(50, tmp_path, "--trainer.max_steps=9999", interrupt="best 0")
    assert code == 130
    drawn = lines(written)
    begin = next(i for i, line in enumerate(drawn) if line.startswith("training"))
    end = next(i for i, line in enumerate(drawn) if line.startswith("SIGINT: stopped; saved at step"))
    bars = [line.rstrip() for line in drawn[begin:end] if line.strip()]
    assert max(map(len, bars)) <= 50
    pieces = r"(loss|accuracy|val|best) \d\.\d{3}|[\d,.]+ tasks/s"
    for line in bars:
        if not line.startswith(("training ", "validation ")):
            assert all(re.fullmatch(pieces, piece) for piece in re.split(" {2,}", line)), line
    assert written.rindex(HIDE) < written.rindex(SHOW)


def test_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches control characters in a log file, and a last line that lacks the last validation."""
    assert tiny(tmp_path, command="fit") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    steps = [line for line in said.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == [f"{step}/6" for step in range(1, 7)]
    assert re.fullmatch(rf"step 6/6  {NUMBERS}  0:00:00 left", steps[-1]), steps[-1]
    (folder,) = folders(tmp_path)
    scores = re.findall(r"(?:val|best) (\S+)", steps[-1])
    assert scores[1] == max(scores)


class Training:
    """A training that takes only the time that it is given, printed as lines.

    Args:
        total: number of its steps.
    """

    def __init__(self, total: float) -> None:
        self.now = 0.0
        self.file = io.StringIO()
        console = Console(file=self.file, get_time=lambda: self.now)
        self.progress = RunProgress(console, "accuracy", max)
        self.trainer = mock.MagicMock(pl.Trainer, is_global_zero=True, callback_metrics={}, global_step=0)
        self.trainer.estimated_stepping_batches = total
        self.model = mock.MagicMock(pl.LightningModule)
        self.progress.setup(self.trainer, self.model, "fit")
        self.progress.on_train_start(self.trainer, self.model)

    def batch(self, step: int, seconds: float = 0.0) -> None:
        """End a batch, after which `step` steps are done."""
        self.now += seconds
        self.trainer.global_step = step
        self.progress.on_train_batch_end(self.trainer, self.model, None, None, 0)

    def lines(self) -> list[str]:
        """The lines so far."""
        return self.file.getvalue().splitlines()


def test_the_first_step_does_not_count_in_the_time_left():
    """Catches an estimate that the first, slow step raises for the rest of the training."""
    training = Training(40)
    for step in range(1, 40):
        training.batch(step, 100.0 if step == 1 else 2.0)
    lines = {line.split()[1]: line for line in training.lines()}
    assert lines["2/40"] == "step 2/40  0:01:16 left"
    assert lines["30/40"] == "step 30/40  0:00:20 left"


def test_time_left_is_that_of_the_last_minutes():
    """Catches an estimate that hangs on the speed of hours ago."""
    training = Training(4000)
    for step in range(1, 3001):
        training.batch(step, 10.0 if step < 2000 else 1.0)
    assert training.lines()[-1] == "step 3000/4000  0:16:40 left"


def test_training_without_end_and_with_accumulated_gradients():
    """Catches a crash where no steps can be counted down, and one line for each batch of a step."""
    training = Training(math.inf)
    for step in (1, 2000, 2000, 2000, 2001):
        training.batch(step)
    assert training.lines() == ["step 2000"]


def test_quiet_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Catches a banner, line or table that quiet lets through, Lightning's too, and a file that it omits."""
    assert tiny(tmp_path, "--run.quiet=true") == 0
    (folder,) = folders(tmp_path)
    assert {"results.json", "per_task.csv", "metrics.csv"} <= {path.name for path in files(folder)}
    best = f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"
    for command in ("test", "validate", "predict"):
        assert tiny(tmp_path, best, "--run.quiet=true", command=command, name=command) == 0
    assert (folders(tmp_path, "predict")[0] / "predictions.csv").is_file()
    assert capfd.readouterr() == ("", "")
    assert tiny(tmp_path, "--run.quiet=true", "--data.way=0") == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
