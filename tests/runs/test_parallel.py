"""Several processes: the same tasks, gradients, weights and scores as one. Lightning starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.places import ROOT
from tests.runs.test_resume import start, steps_of, wait_for
from tests.tiny_run import folders, results, rows

SIZES = [
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=10",
    "--data.steps_per_epoch=50",
    "--data.val_tasks=50",
    "--data.test_tasks=50",
    "--model.learner.num_latents=8",
]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
TOLERANCE = {"64-true": 1e-12, "32-true": 1e-6}


def command(root: Path, name: str, *args: str, what: str = "fit") -> list[str]:
    sizes = SIZES if what in ("fit", "fit_test") else []
    return [str(ROOT / "train.py"), what, *sizes, f"--run.root={root}", f"--run.name={name}", *args]


def run(root: Path, name: str, *args: str, what: str = "fit") -> str:
    done = subprocess.run(
        [sys.executable, *command(root, name, *args, what=what)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def last(root: Path, name: str) -> dict:
    (folder,) = folders(root, name)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Norm of the difference relative to the norm, of the worst tensor."""
    return max(((a[key] - b[key]).norm() / a[key].norm()).item() for key in a)


def first_moments(checkpoint: dict) -> dict[str, torch.Tensor]:
    states = checkpoint["optimizer_states"][0]["state"].values()
    return {name: state["exp_avg"] for name, state in zip(checkpoint["state_dict"], states, strict=True)}


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_gradient_of_two_halves_is_that_of_the_whole(precision: str, tmp_path: Path):
    """Catches noise or tasks that depend on the process, and a sum where a mean is due.

    Without clipping, Adam's first moment after one step is a tenth of the gradient.
    """
    options = [f"--trainer.precision={precision}", "--trainer.max_steps=1", "--data.val_tasks=2"]
    options += ["--model.clip_value=1e9", "--model.clip_norm=1e9"]
    run(tmp_path, "one", *options, "--data.batch_size=12")
    run(tmp_path, "two", *options, "--data.batch_size=6", *TWO)
    one, two = (first_moments(last(tmp_path, name)) for name in ("one", "two"))
    assert distance(one, two) < TOLERANCE[precision]


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_two_processes_train_the_same_weights(precision: str, tmp_path: Path):
    """Catches whatever drifts: clipping before the gradients are averaged, steps skipped on one process only.

    Two processes take the second half of the steps of one run. The KL term is left out: where standard
    deviations are clamped, as at the start, its gradient 1/std blows up the last bit of a sum a millionfold,
    in one process as in two.
    """
    options = [f"--trainer.precision={precision}", "--model.learner.kl_weight=0"]
    run(tmp_path, "one", *options, "--trainer.max_steps=200", "--data.batch_size=12")
    run(tmp_path, "two", *options, "--trainer.max_steps=100", "--data.batch_size=12")
    more = ["--trainer.max_steps=200", "--resume=auto", "--data.batch_size=6", *TWO]
    said = run(tmp_path, "two", *options, *more)
    assert "2 processes of 6 tasks" in said
    assert "changed trainer.devices: auto → 2" in said
    one, two = (last(tmp_path, name) for name in ("one", "two"))
    assert one["global_step"] == two["global_step"] == 200
    assert distance(one["state_dict"], two["state_dict"]) < TOLERANCE[precision]
    histories = [rows(folders(tmp_path, name)[0] / "metrics.csv") for name in ("one", "two")]
    for mine, theirs in zip(*histories, strict=True):
        for key, value in mine.items():
            if key != "throughput/tasks_per_second" and value:
                assert float(value) == pytest.approx(float(theirs[key]), rel=2e-5, abs=1e-9), key


def test_accumulated_gradients_train_the_same_weights(tmp_path: Path):
    """Catches noise that is the same in both halves, and a checkpoint between them."""
    options = ["--trainer.precision=64-true", "--model.learner.kl_weight=0", "--trainer.max_steps=50"]
    run(tmp_path, "one", *options, "--data.batch_size=12", "--data.steps_per_epoch=25")
    halves = ["--trainer.accumulate_grad_batches=2", "--data.batch_size=6", "--run.checkpoint_every=3"]
    run(tmp_path, "two", *options, *halves)
    one, two = (last(tmp_path, name) for name in ("one", "two"))
    assert distance(one["state_dict"], two["state_dict"]) < 1e-12


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parallel")
    run(root, "run", "--trainer.max_steps=100", what="fit_test")
    return root


@pytest.mark.parametrize("processes", [2, 3])
def test_scores_do_not_depend_on_the_number_of_processes(processes: int, trained: Path, tmp_path: Path):
    """Catches tasks counted twice or not at all where they do not divide evenly; predictions of one only."""
    (folder,) = folders(trained, "run")
    options = [f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}", "--trainer.strategy=ddp"]
    options += [f"--trainer.devices={processes}"]
    run(tmp_path, "test", *options, what="test")
    tested = folders(tmp_path, "test")[0]
    assert (tested / "per_task.csv").read_text() == (folder / "per_task.csv").read_text()
    assert results(tested)["stages"] == results(folder)["stages"]
    if processes == 2:
        run(tmp_path, "some", *options, "--data.predict_tasks=5", what="predict")
        run(tmp_path, "all", *options[:1], "--data.predict_tasks=5", what="predict")
        some, everything = ((folders(tmp_path, name)[0] / "predictions.csv") for name in ("some", "all"))
        assert some.read_text() == everything.read_text()
        assert len(rows(some)) == 5 * 5 * 15


@pytest.mark.parametrize(("T", "F"), [(0, 2), (2, 0)])
def test_no_parameter_goes_unused(T: int, F: int, tmp_path: Path):
    """Catches a parameter without gradient: DDP then wants find_unused_parameters, which is slow."""
    steps = [f"--model.learner.latent_steps={T}", f"--model.learner.finetuning_steps={F}"]
    run(tmp_path, "run", *steps, "--trainer.max_steps=3", "--trainer.limit_val_batches=0", *TWO)
    assert last(tmp_path, "run")["global_step"] == 3


def test_torchrun_over_two_nodes(tmp_path: Path):
    """Catches a run folder for each process, and the recipe of the documentation when it no longer works."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [
        start(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}",
                "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}",
                *command(tmp_path, "run", "--trainer.max_steps=20", what="fit_test"),
                "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp",
            ]
        )
        for node in range(2)
    ]  # fmt: skip
    for node in nodes:
        out, err = node.communicate(timeout=120)
        assert node.returncode == 0, err
    (folder,) = folders(tmp_path, "run")
    assert results(folder)["tasks"] == 50
    assert last(tmp_path, "run")["global_step"] == 20


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in text.split()]


def test_a_signal_to_the_first_process_stops_all(tmp_path: Path):
    """Catches processes that wait for each other for ever, and those that outlive the first."""
    options = [*TWO, "--trainer.max_steps=1000000", "--trainer.log_every_n_steps=1"]
    process = start([sys.executable, *command(tmp_path, "run", *options)])
    wait_for(process, tmp_path, "run/*/metrics.csv", 20)
    others = children(process.pid)
    assert others
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == ""
    (folder,) = folders(tmp_path, "run")
    step = steps_of(folder / "checkpoints" / "last.ckpt")
    assert f"SIGTERM: stopped; saved at step {step}, go on with: " in out
    assert step == 1 + int(rows(folder / "metrics.csv")[-1]["step"])
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_too_few_tasks_for_the_processes(tmp_path: Path):
    """Catches a process without tasks, for which the others wait."""
    args = command(tmp_path, "run", *TWO, "--data.val_tasks=1", "--trainer.max_steps=2")
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "error: data.val_tasks is 1: it must be at least 2" in errors
    assert "Traceback" not in done.stderr
