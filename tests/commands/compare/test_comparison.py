"""The whole command on tiny runs: what it trains, evaluates, keeps and says."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from leo_lightning.commands.compare.comparison import claimed_folder
from leo_lightning.commands.compare.entrants import Entrant, digest_of, enter, load_banks
from leo_lightning.commands.compare.evaluation import Examiner, Protocol
from leo_lightning.commands.compare.plan import Plan, read_plan
from leo_lightning.commands.compare.training import Run, finished_run, job, trained
from leo_lightning.commands.jobs import runner
from leo_lightning.commands.jobs.local_run import LocalLauncher
from leo_lightning.commands.jobs.progress import Progress, Row
from leo_lightning.commands.jobs.runner import Ended, Runner
from leo_lightning.common.errors import Interrupted
from leo_lightning.training.checkpoint import read_checkpoint
from tests.commands.compare.plans import CENTROID, ROOT, tiny_leo, write_plan
from tests.tiny_run import main, rows

METHODS = {
    "LEO": tiny_leo(),
    "broken & co": tiny_leo(**{"trainer.gradient_clip_val": 1.0}),
    "nearest centroid": {"config": CENTROID, "set": {"data.normalize": "l2"}},  # as LEO's
}
pytestmark = pytest.mark.usefixtures("forked_runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, forked_runs: None) -> Path:
    """The folder of a comparison of three methods, one of which fails."""
    folder = tmp_path_factory.mktemp("comparison")
    assert main(["compare", "--config", str(plan_of(folder))]) == 1
    return folder


def plan_of(folder: Path, **fields: object) -> Path:
    return write_plan(folder, **({"methods": METHODS, "shots": [1, 2], "ways": [2, 5]} | fields))


def timed(checkpoint: Path) -> float:
    """Seconds from the first step to a checkpoint, without the start of the process."""
    return read_checkpoint(checkpoint)["callbacks"]["Timer"]["time_elapsed"]["train"]


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid training and evaluation from here on."""

    def forbidden(*args: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(LocalLauncher, "start", forbidden)
    monkeypatch.setattr(Examiner, "examine", forbidden)


def test_table_and_figure(done: Path):
    """Catches a failed method that ends the others, a start-up that counts as training, paths of here."""
    out = done / "out"
    table = {row["method"]: row for row in rows(out / "table.csv")}
    assert list(table) == list(METHODS)
    assert "gradient_clip_val" in table["broken & co"]["note"]
    assert "broken & co, seed 0: failed: logs/broken-co.seed0.log: " in table["broken & co"]["note"]
    assert (table["LEO"]["steps"], table["LEO"]["parameters"]) != ("", "0")
    [last] = out.glob("runs/leo.*/*/checkpoints/last.ckpt")
    assert float(table["LEO"]["training_seconds"]) == timed(last) > 0
    assert table["LEO"]["best_step"] in ("20", "40")
    assert table["nearest centroid"]["parameters"] == "0"
    assert table["nearest centroid"]["difference"] != ""
    assert len(rows(out / "plot.csv")) == 2 * 3
    for name in ("table.md", "table.tex", "table.csv", "plot.csv", "plot.svg"):
        assert str(done) not in (out / name).read_text()
    for path in out.glob("results/*/*.json"):
        assert str(done) not in path.read_text()
    assert (out / "plot.png").is_file()


def test_same_as_train_py(done: Path, tmp_path: Path):
    """Catches other tasks, other features or another checkpoint than `train.py test` has."""
    [checkpoint] = (done / "out" / "runs").glob("leo.*/*/checkpoints/best.ckpt")
    code = main(
        [
            "test", "--trainer.accelerator=cpu", "--data.query=5", "--data.test_tasks=60",
            f"--ckpt_path={checkpoint}", f"--config={checkpoint.parents[1] / 'config.yaml'}",
            f"--run.root={tmp_path}", "--run.name=test",
        ]
    )  # fmt: skip
    assert code == 0
    [theirs] = (tmp_path / "test").glob("*/per_task.csv")
    for slug, stage in (("leo", "final"), ("nearest-centroid", "nearest_centroid")):
        [ours] = (done / "out" / "results" / slug).glob("5way-1shot-60tasks.*.json")
        accuracy = json.loads(ours.read_text())["accuracy"]
        assert accuracy == [float(row[stage]) for row in rows(theirs)]


def test_nothing_is_done_twice(done: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a second training or evaluation, and a table that changes by itself."""
    before = (done / "out" / "table.csv").read_text().splitlines()
    no_work(monkeypatch)
    arguments = ["--config", str(plan_of(done)), "--only", "LEO", "--only", "nearest centroid"]
    assert main(["compare", *arguments]) == 0
    after = (done / "out" / "table.csv").read_text().splitlines()
    assert after == [line for line in before if not line.startswith("broken")]


def test_only_shows_what_is_known(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches other methods that are evaluated too, or that disappear."""
    no_work(monkeypatch)
    assert main(["compare", "--config", str(plan_of(done)), "--only", "nearest centroid", "--no-plot"]) == 0
    assert [row["method"] for row in rows(done / "out" / "table.csv")] == ["LEO", "nearest centroid"]
    assert "left out, not evaluated yet: broken & co" in capsys.readouterr().out


def test_another_reference(done: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a --reference that is ignored, or that costs a second evaluation."""
    differences = []
    no_work(monkeypatch)
    for reference in ("LEO", "nearest centroid"):
        flags = ["--reference", reference, "--only", "nearest centroid", "--no-plot"]
        assert main(["compare", "--config", str(plan_of(done)), *flags]) == 0
        differences.append([row["difference"] for row in rows(done / "out" / "table.csv")])
    (mine, theirs), (ours, none) = differences
    assert (mine, none) == ("", "")
    assert float(theirs) == -float(ours)


def test_a_damaged_result_is_computed_again(done: Path):
    """Catches half a file that is believed, and a result for other features."""
    plan = read_plan(plan_of(done))
    features = digest_of(load_banks(plan))
    protocol = Protocol(5, 1, 60)
    [entrant] = enter(plan.methods[2], plan, features)
    examiner = Examiner(entrant, None, plan)
    kept = examiner.kept(protocol)
    path = examiner._path(protocol)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert examiner.kept(protocol) is None
    result = examiner.examine(protocol, lambda progress: None)
    assert kept is not None
    assert torch.equal(kept.accuracy, result.accuracy)
    assert torch.equal(kept.reliability, result.reliability)
    [other] = enter(plan.methods[2], plan, "other features")
    assert Examiner(other, None, plan).kept(protocol) is None


def test_changed_configuration_is_trained_anew(done: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a checkpoint of another configuration in the table."""
    changed = {"LEO": tiny_leo(**{"model.learning_rate": 0.01})}
    path = plan_of(done, methods=changed, steps=10)
    assert main(["compare", "--config", str(path), "--no-plot"]) == 0
    assert (
        "LEO, seed 0: its configuration or the features have changed, so it is trained anew"
        in capsys.readouterr().out
    )
    assert len(list((done / "out" / "runs").glob("leo.*"))) == 2


def long_run(folder: Path) -> Plan:
    """A plan of one method that trains long enough to be stopped."""
    return read_plan(plan_of(folder, methods={"LEO": tiny_leo()}, steps=300))


def test_seeds_and_patience(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches seeds that train alike, a training that goes on after its best, and one that is begun again.

    The learning rate makes every validation worse than the first.
    """
    bad = tiny_leo(**{"model.learning_rate": 3.0, "data.steps_per_epoch": 5})
    path = plan_of(tmp_path, methods={"LEO": bad}, patience=2, seeds=[0], shots=[], ways=[])
    assert main(["compare", "--config", str(path), "--seeds", "0", "--steps", "500"]) == 0
    capsys.readouterr()
    assert main(["compare", "--config", str(path), "--seeds", "0,1", "--steps", "500"]) == 0
    said = capsys.readouterr().out
    assert said.count("trained to step") == 1
    assert "trained anew" not in said
    [row] = rows(tmp_path / "out" / "table.csv")
    best, steps = ([int(number) for number in row[name].split()] for name in ("best_step", "steps"))
    assert [step - 10 for step in steps] == best
    assert max(steps) < 500
    assert (row["seeds"], float(row["seed_std"]) > 0) == ("2", True)


def train(entrant: Entrant, plan: Plan, over: Callable[[], bool] = lambda: False) -> Run:
    """Train a method alone; `over` is called at each look at it."""
    one = dataclasses.replace(job(entrant, plan), over=over)
    progress = Progress(plan.out / "progress.log", Console(file=io.StringIO()), "method", "val accuracy")
    progress.rows[one.name] = Row("LEO", 0, plan.steps)
    following = iter([one])
    with Runner(LocalLauncher(), 1, plan.out, progress) as runner:
        [end] = runner.run(lambda: next(following, None))
    return trained(entrant, plan, end)


@pytest.mark.slow
def test_signal_is_passed_on_and_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a child that goes on alone, one that saves nothing, and a resumed run that begins anew."""
    monkeypatch.setattr(runner, "LOOK", 0.01)
    plan = long_run(tmp_path)
    [entrant] = enter(plan.methods[0], plan, "features")

    def stop() -> bool:
        if list(plan.runs.rglob("last.ckpt")):
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with runner.sigterm_interrupts(), pytest.raises(Interrupted) as caught:
        train(entrant, plan, stop)
    assert caught.value.signal == signal.SIGTERM
    assert finished_run(entrant, plan) is None
    assert "SIGTERM: stopped; saved at step" in (plan.out / "logs" / "leo.seed0.log").read_text()
    [last] = plan.runs.glob("*/*/checkpoints/last.ckpt")
    first = timed(last)
    run = train(entrant, plan)
    assert len(list(plan.runs.glob("*/*/checkpoints"))) == 1
    assert run.seconds is not None
    assert run.seconds > first > 0
    validations = [row for row in rows(run.tested.parents[1] / "metrics.csv") if row["val/accuracy"]]
    assert [int(row["step"]) for row in validations] == list(range(19, 300, 20))


@pytest.mark.slow
def test_killed_comparison_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a child that outlives its parent, two run folders, and a lock that nobody releases."""
    plan = long_run(tmp_path)
    arguments = ["--config", str(tmp_path / "plan.yaml"), "--no-plot"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "leo_lightning", "compare", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not list(plan.runs.rglob("last.ckpt")):
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert main(["compare", *arguments]) == 0
    assert "resumed" in (plan.out / "logs" / "leo.seed0.log").read_text()
    assert len(list(plan.runs.glob("*/*/checkpoints"))) == 1


@pytest.mark.parametrize(
    ("code", "reason", "line"), [(None, "it was killed", "it was killed"), (0, "", "ended before step 300")]
)
def test_child_without_an_error_line_has_failed(code: int | None, reason: str, line: str, tmp_path: Path):
    """Catches a method that counts as trained because nothing was said, as where memory is short."""
    plan = long_run(tmp_path)
    [entrant] = enter(plan.methods[0], plan, "features")
    with pytest.raises(RuntimeError, match=rf"^logs/leo\.seed0\.log: {line}$"):
        trained(entrant, plan, Ended(job(entrant, plan), code, False, 1.0, reason))


def test_a_folder_in_which_nothing_began_is_removed(tmp_path: Path):
    """Catches an empty folder that is left behind, and one removed that was there before."""
    plan = read_plan(plan_of(tmp_path))
    with claimed_folder(plan.out):
        pass
    assert not plan.out.exists()
    plan.out.mkdir()
    with claimed_folder(plan.out):
        pass
    assert plan.out.exists()


def test_help_is_quick():
    """Catches torch imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys, leo_lightning.commands.compare.command as c; "
        "c._parser().format_help(); print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert run.stdout == "False\n"
