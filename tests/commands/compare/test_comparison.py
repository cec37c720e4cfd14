"""The whole command on tiny runs: what it trains, evaluates, keeps and says.

A child process takes seconds to start, so the tests share theirs: seven in all.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leo_lightning.commands import train as cli
from leo_lightning.commands.compare import training
from leo_lightning.commands.compare.command import main
from leo_lightning.commands.compare.comparison import lock_folder
from leo_lightning.commands.compare.entrants import banks_of, digest_of, enter
from leo_lightning.commands.compare.evaluation import Examiner, Protocol
from leo_lightning.commands.compare.plan import Plan, read_plan
from leo_lightning.commands.compare.training import TrainingFailed, finished_run, train
from leo_lightning.common.errors import InputError, Interrupted
from tests.commands.compare.plans import CENTROID, ROOT, tiny_leo, write_plan
from tests.tiny_run import rows

METHODS = {
    "LEO": tiny_leo(),
    "broken & co": tiny_leo(**{"trainer.gradient_clip_val": 1.0}),
    "nearest centroid": {"config": CENTROID, "set": {"data.normalize": "l2"}},  # as LEO's
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of three methods, one of which fails: two children."""
    folder = tmp_path_factory.mktemp("comparison")
    assert main(["--config", str(plan_of(folder))]) == 1
    return folder


def plan_of(folder: Path, **fields: object) -> Path:
    return write_plan(folder, **({"methods": METHODS, "shots": [1, 2], "ways": [2, 5]} | fields))


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, to train or to evaluate is an error."""

    def forbidden(*args: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(training, "_watch", forbidden)
    monkeypatch.setattr(Examiner, "examine", forbidden)


def test_table_and_figure(done: Path):
    """Catches a failed method that ends the others, a file too few, and paths of this machine."""
    out = done / "out"
    table = {row["method"]: row for row in rows(out / "table.csv")}
    assert list(table) == list(METHODS)
    assert "gradient_clip_val" in table["broken & co"]["note"]
    assert "see logs/broken-co.log" in table["broken & co"]["note"]
    assert (table["LEO"]["steps"], table["LEO"]["parameters"]) != ("", "0")
    assert float(table["LEO"]["training_seconds"]) > 1
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
    code = cli.main(
        [
            "test", "--trainer.accelerator=cpu", "--data.query=5", "--data.test_tasks=60",
            f"--ckpt_path={checkpoint}", f"--config={checkpoint.parents[1] / 'config.yaml'}",
            f"--run.root={tmp_path}", "--run.name=test",
        ]
    )  # fmt: skip
    assert code == 0
    [theirs] = (tmp_path / "test").glob("*/per_task.csv")
    for slug, stage in (("leo", "final"), ("nearest-centroid", "nearest_centroid")):
        [ours] = (done / "out" / "results" / slug).glob("5way-1shot-60tasks.*.csv")
        assert [row["accuracy"] for row in rows(ours)] == [row[stage] for row in rows(theirs)]


def test_nothing_is_done_twice(done: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a second training or evaluation, and a table that changes by itself."""
    before = (done / "out" / "table.csv").read_text().splitlines()
    no_work(monkeypatch)
    arguments = ["--config", str(plan_of(done)), "--only", "LEO", "--only", "nearest centroid"]
    assert main(arguments) == 0
    after = (done / "out" / "table.csv").read_text().splitlines()
    assert after == [line for line in before if not line.startswith("broken")]


def test_only_shows_what_is_known(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches other methods that are evaluated too, or that disappear."""
    no_work(monkeypatch)
    assert main(["--config", str(plan_of(done)), "--only", "nearest centroid", "--no-plot"]) == 0
    assert [row["method"] for row in rows(done / "out" / "table.csv")] == ["LEO", "nearest centroid"]
    assert "left out: broken & co (not trained yet)" in capsys.readouterr().out


def test_another_reference(done: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a --reference that is ignored, or that costs a second evaluation."""
    differences = []
    no_work(monkeypatch)
    for reference in ("LEO", "nearest centroid"):
        flags = ["--reference", reference, "--only", "nearest centroid", "--no-plot"]
        assert main(["--config", str(plan_of(done)), *flags]) == 0
        differences.append([row["difference"] for row in rows(done / "out" / "table.csv")])
    (mine, theirs), (ours, none) = differences
    assert (mine, none) == ("", "")
    assert float(theirs) == -float(ours)


def test_a_damaged_result_is_found_out_again(done: Path):
    """Catches half a file that is believed: of tasks, and of the rest."""
    plan = read_plan(plan_of(done))
    features = digest_of(banks_of(plan))
    entrant = enter(plan.methods[2], plan, features)
    protocol = Protocol(5, 1, 60)
    examiner = Examiner(entrant, None, plan, features)
    assert examiner.kept(protocol) is not None
    for suffix in (".csv", ".json"):
        path = examiner._path(protocol).with_suffix(suffix)
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2])
        assert examiner.kept(protocol) is None
        path.write_text(whole)
    assert Examiner(entrant, None, plan, "other features").kept(protocol) is None
    kept, found = examiner.kept(protocol), examiner.examine(protocol, lambda far: None)
    assert kept is not None
    assert torch.equal(kept.accuracy, found.accuracy)
    assert torch.equal(kept.reliability, found.reliability)


def test_changed_configuration_is_trained_anew(done: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a checkpoint of another configuration in the table. One child."""
    changed = {"LEO": tiny_leo(**{"model.learning_rate": 0.01})}
    path = plan_of(done, methods=changed, steps=10)
    assert main(["--config", str(path), "--no-plot"]) == 0
    assert (
        "LEO: its configuration or the features have changed, so it is trained anew"
        in capsys.readouterr().out
    )
    assert len(list((done / "out" / "runs").glob("leo.*"))) == 2


def test_damaged_clock_fails_its_method_only(done: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a training time out of nothing, and one damaged file that ends the whole comparison."""
    for clock in (done / "out" / "runs").glob("leo.*/seconds.json"):
        clock.write_text("{")
    methods = ["--only", "LEO", "--only", "nearest centroid"]
    assert main(["--config", str(plan_of(done)), *methods, "--no-plot"]) == 1
    said = capsys.readouterr().out
    assert "seconds.json: is damaged; remove it, and training times begin anew" in said
    table = {row["method"]: row for row in rows(done / "out" / "table.csv")}
    assert "is damaged" in table["LEO"]["note"]
    assert table["nearest centroid"]["accuracy"] != ""


def stopped(folder: Path) -> tuple[Plan, Path]:
    """A plan of one long run, and where its checkpoint will be."""
    plan = read_plan(plan_of(folder, methods={"LEO": tiny_leo()}, steps=300))
    return plan, plan.runs


def test_signal_is_passed_on_and_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a child that goes on alone, one that saves nothing, and a resumed run that begins anew.

    Two children.
    """
    monkeypatch.setattr(training, "POLL", 0.01)
    plan, runs = stopped(tmp_path)
    entrant = enter(plan.methods[0], plan, "features")
    sent = []

    def stop(line: str) -> None:
        if not sent and list(runs.rglob("last.ckpt")):
            sent.append(line)
            os.kill(os.getpid(), signal.SIGTERM)

    with lock_folder(plan.out) as lock:
        with pytest.raises(Interrupted) as caught:
            train(entrant, plan, lock, stop)
        assert caught.value.signal == signal.SIGTERM
        assert finished_run(entrant, plan) is None
        assert "go on with" in plan.log(plan.methods[0]).read_text()
        [clock] = runs.glob("*/seconds.json")
        first = json.loads(clock.read_text())["seconds"]
        train(entrant, plan, lock, lambda line: None)
    run = finished_run(entrant, plan)
    assert run is not None
    assert len(list(runs.glob("*/*/checkpoints"))) == 1
    assert run.seconds > first + 1
    with (run.last.parents[1] / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/accuracy"]]
    assert steps == sorted(set(steps))


def test_killed_parent_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches two children in one run folder, and an outliving child's work that is done again.

    Two processes.
    """
    plan, runs = stopped(tmp_path)
    arguments = ["--config", str(tmp_path / "plan.yaml"), "--no-plot"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "leo_lightning", "compare", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: bool(list(runs.rglob("last.ckpt"))))
    parent.kill()
    parent.wait()
    if main(arguments) == 2:  # unless the child was as quick
        assert "another comparison is at work here" in capsys.readouterr().err
    wait_for(lambda: unlocked(plan.out))
    assert main(arguments) == 0
    assert "training ..." not in capsys.readouterr().out


def wait_for(happened: object, seconds: float = 120.0) -> None:
    assert callable(happened)
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def unlocked(folder: Path) -> bool:
    try:
        with lock_folder(folder):
            return True
    except InputError:
        return False


@pytest.mark.parametrize(
    ("code", "line"), [(-signal.SIGKILL, "ended by SIGKILL"), (0, "ended before step 300")]
)
def test_child_that_says_nothing_is_told(
    code: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches an end, as by a machine short of memory, that is told as the line before it, or not at all."""
    plan, _ = stopped(tmp_path)
    monkeypatch.setattr(training, "_watch", lambda *args: code)
    with pytest.raises(TrainingFailed, match=f"^{line}; its last line: "):
        train(enter(plan.methods[0], plan, "features"), plan, 0, lambda line: None)


def test_lock_leaves_no_folder(tmp_path: Path):
    """Catches an empty folder where nothing has begun, and one taken away that was there."""
    with lock_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with lock_folder(tmp_path / "old"):
        pass
    assert (tmp_path / "old").exists()


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
