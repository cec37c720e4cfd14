"""Several processes: the same tasks, gradients, weights and scores as one."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.child import run, start
from tests.places import ROOT, free_port
from tests.runs.long_run import steps_of, wait_for
from tests.tiny_run import folders, results, rows

pytestmark = pytest.mark.slow

SIZES = [
    "--data.root=synthetic",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=10",
    "--data.steps_per_epoch=50",
    "--data.val_tasks=50",
    "--data.test_tasks=50",
    "--model.learner.num_latents=8",
]
TOLERANCE = {"64-true": 1e-12, "32-true": 1e-6}


def command(root: Path, name: str, *args: str, verb: str = "fit", processes: int = 1) -> list[str]:
    sizes = SIZES if verb in ("fit", "fit_test") else []
    several = [f"--trainer.devices={processes}", "--trainer.strategy=ddp"] if processes > 1 else []
    return [verb, *sizes, f"--run.root={root}", f"--run.name={name}", *several, *args]


def train(root: Path, name: str, *args: str, verb: str = "fit", processes: int = 1) -> str:
    """Run a command; what its first process writes.

    The others are started here, as torchrun does, and not by Lightning, where they import everything anew.
    """
    arguments = command(root, name, *args, verb=verb, processes=processes)
    if processes == 1:
        children = [start(*arguments)]
    else:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        ranks = [os.environ | group | {"LOCAL_RANK": str(rank)} for rank in range(processes)]
        children = [start(*arguments, environment=environment) for environment in ranks]
    for child in children:
        out, err = child.communicate()
        assert child.returncode == 0, err
        assert "warning" not in err
    return children[0].output()[0]


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
    train(tmp_path, "one", *options, "--data.batch_size=12")
    train(tmp_path, "two", *options, "--data.batch_size=6", processes=2)
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
    train(tmp_path, "one", *options, "--trainer.max_steps=200", "--data.batch_size=12")
    train(tmp_path, "two", *options, "--trainer.max_steps=100", "--data.batch_size=12")
    more = ["--trainer.max_steps=200", "--resume=auto", "--data.batch_size=6"]
    out = train(tmp_path, "two", *options, *more, processes=2)
    assert "2 processes of 6 tasks" in out
    assert "changed trainer.devices: auto → 2" in out
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
    train(tmp_path, "one", *options, "--data.batch_size=12", "--data.steps_per_epoch=25")
    halves = ["--trainer.accumulate_grad_batches=2", "--data.batch_size=6", "--run.checkpoint_every=3"]
    train(tmp_path, "two", *options, *halves)
    one, two = (last(tmp_path, name) for name in ("one", "two"))
    assert distance(one["state_dict"], two["state_dict"]) < 1e-12


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parallel")
    train(root, "run", "--trainer.max_steps=100", "--data.unknown=2", verb="fit_test")
    return root


@pytest.mark.parametrize("processes", [2, 3])
def test_scores_do_not_depend_on_the_number_of_processes(processes: int, trained: Path, tmp_path: Path):
    """Catches tasks counted twice or not at all where they do not divide evenly; predictions of one only."""
    (folder,) = folders(trained, "run")
    checkpoint = f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"
    train(tmp_path, "test", checkpoint, verb="test", processes=processes)
    tested = folders(tmp_path, "test")[0]
    assert (tested / "per_task.csv").read_text() == (folder / "per_task.csv").read_text()
    assert results(tested)["stages"] == results(folder)["stages"]
    assert results(tested)["unknown"] == results(folder)["unknown"]
    if processes == 2:
        for name, count in (("two", 2), ("one", 1)):
            train(tmp_path, name, checkpoint, "--data.predict_tasks=5", verb="predict", processes=count)
        two, one = ((folders(tmp_path, name)[0] / "predictions.csv") for name in ("two", "one"))
        assert two.read_text() == one.read_text()
        assert len(rows(two)) == 5 * 5 * 15


@pytest.mark.parametrize(("T", "F"), [(0, 2), (2, 0)])
def test_no_parameter_goes_unused(T: int, F: int, tmp_path: Path):
    """Catches a parameter without gradient: DDP then wants find_unused_parameters, which is slow."""
    steps = [f"--model.learner.latent_steps={T}", f"--model.learner.finetuning_steps={F}"]
    train(tmp_path, "run", *steps, "--trainer.max_steps=3", "--trainer.limit_val_batches=0", processes=2)
    assert last(tmp_path, "run")["global_step"] == 3


def test_torchrun_over_two_nodes(tmp_path: Path):
    """Catches a run folder for each process, and the recipe of the documentation when it no longer works."""
    port = free_port()
    nodes = [
        start(
            "--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1", "--master-addr=127.0.0.1",
            f"--master-port={port}", str(ROOT / "train.py"),
            *command(tmp_path, "run", "--trainer.max_steps=20", verb="fit_test"),
            "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp",
            target="torch.distributed.run:main",
        )
        for node in range(2)
    ]  # fmt: skip
    for node in nodes:
        out, err = node.communicate()
        assert node.returncode == 0, err
    (folder,) = folders(tmp_path, "run")
    assert results(folder)["tasks"] == 50
    assert last(tmp_path, "run")["global_step"] == 20


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in text.split()]


def test_a_signal_to_the_first_process_stops_all(tmp_path: Path):
    """Catches processes that wait for each other for ever or outlive the first, and another exit code.

    Lightning kills the first process if another one is killed.
    """
    options = ["--trainer.max_steps=1000000", "--trainer.log_every_n_steps=1"]
    child = start(*command(tmp_path, "run", *options, processes=2), target="tests.runs.impatient:main")
    wait_for(child, tmp_path, "run/*/metrics.csv", 20)
    others = children(child.pid)
    assert others
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM
    assert err == ""
    (folder,) = folders(tmp_path, "run")
    step = steps_of(folder / "checkpoints" / "last.ckpt")
    assert f"SIGTERM: stopped; saved at step {step}, " in out
    assert step == 1 + int(rows(folder / "metrics.csv")[-1]["step"])
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_process_is_named(tmp_path: Path):
    """Catches gloo's traceback, and a process that waits for the dead one."""
    options = ["--trainer.max_steps=1000000", "--trainer.log_every_n_steps=1"]
    child = start(*command(tmp_path, "run", *options, processes=2))
    wait_for(child, tmp_path, "run/*/metrics.csv", 20)
    for pid in children(child.pid):
        os.kill(pid, signal.SIGKILL)
    _, err = child.communicate()
    assert child.returncode == 2
    assert err.startswith("error: another process of this run has ended")
    assert err.count("\n") == 1


def test_too_few_tasks_for_the_processes(tmp_path: Path):
    """Catches a process without tasks, for which the others wait."""
    child = run(*command(tmp_path, "run", "--data.val_tasks=1", "--trainer.max_steps=2", processes=2))
    _, err = child.output()
    assert child.returncode == 2
    assert "error: data.val_tasks is 1: it must be at least 2" in err
    assert "Traceback" not in err
