"""Weights & Biases, online: what a server gets, and what happens without one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import Child, start
from tests.places import free_port
from tests.runs.loggers.fake_wandb import KEY, FakeWandb, serve_wandb
from tests.runs.loggers.logged_run import Job
from tests.tiny_run import folders, rows, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def log(job: Job, home: Path, variables: dict[str, str]) -> Child:
    """Start a run in a process of its own, whose W&B knows only these variables."""
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    places = {"HOME": str(home), "NETRC": str(home / "netrc"), "MPLCONFIGDIR": str(home / "mpl")}
    return start(
        *map(json.dumps, job), target="tests.runs.loggers.logged_run:main",
        environment=inherited | places | variables,
    )  # fmt: skip


def logged(fake: FakeWandb, name: str) -> list[dict]:
    """Rows of the server, without W&B's own columns."""
    return [
        {key: value for key, value in row.items() if not key.startswith("_")}
        for row in fake.runs[name].history
    ]


def expected(end: int) -> list[dict]:
    rows = []
    for step in range(end):
        row = {"trainer/global_step": step, "train/loss": 1 / (step + 1), "epoch": step // 5}
        rows.append(row | ({"val/accuracy": 0.5 + step % 7 / 100} if step % 5 == 4 else {}))
    return rows


def test_server_gets_every_row_once(home: Path, tmp_path: Path):
    """Catches rows lost in a kill, rows taken again that are sent twice, and a resume as another run."""
    fake, folder = FakeWandb(), tmp_path / "leo" / "2026"
    with serve_wandb(fake) as variables:
        often = variables | {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.1"}
        assert log(Job(str(folder), None, 0, 13, killed=True), home, often).wait() == -signal.SIGKILL
        assert (folder / "said").read_text() == f"{fake.home}/a-team/few-shot/runs/leo-2026"
        reached = len(logged(fake, "leo-2026"))
        assert logged(fake, "leo-2026") == expected(13)[:reached]
        del fake.runs["leo-2026"].history[6:]
        # from a checkpoint behind what the server has, then from one before it
        for resumed_at, end in ((10, 17), (14, 20)):
            assert log(Job(str(folder), resumed_at, resumed_at, end), home, variables).wait() == 0
            assert logged(fake, "leo-2026") == expected(end)
    assert "has steps up to 16 from before the change" in (folder / "said").read_text()
    run = fake.runs["leo-2026"]
    assert [row["_step"] for row in run.history] == list(range(20))
    assert run.settings["tags"] == ["synthetic", "5-way"]
    assert run.settings["jobType"] == "fit"
    assert json.loads(run.settings["config"])["model"]["value"] == {"kl_weight": 0.1}
    assert (run.summary["best/accuracy"], run.summary["best/step"]) == (0.55, 20)
    assert run.summary["test/accuracy"] == 0.75
    assert fake.unknown == []
    assert list(fake.runs) == ["leo-2026"]
    assert list(home.rglob("*wandb*")) == []


def test_continues_offline_and_says_why(home: Path, tmp_path: Path):
    """Catches a run that ends, asks or waits for minutes where there is no W&B, and half a run left."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    deaf, nobody = f"http://127.0.0.1:{silent.getsockname()[1]}", f"http://127.0.0.1:{free_port()}"
    with silent, serve_wandb(FakeWandb(status=401)) as refusing:
        cases = {
            "No API key configured. Use `wandb login` to log in": {},
            "API key must have 40+ characters, has 5": {"WANDB_API_KEY": "short"},
            "connection refused": {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": nobody},
            "context deadline exceeded": {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": deaf},
            "no such host": {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://nowhere.invalid"},
            "the server answered 401": refusing,
        }
        children = {}
        for number, (reason, variables) in enumerate(cases.items()):
            job = Job(str(tmp_path / str(number) / "run"), None, 0, 3)
            children[reason, Path(job.folder)] = log(job, home, variables | {"WANDB_INIT_TIMEOUT": "3"})
        assert [child.wait() for child in children.values()] == [0] * len(cases)
    for reason, folder in children:
        (left,) = (folder / "wandb").glob("*run-*")
        assert left.name.startswith("offline-run-")
        said = (folder / "said").read_text()
        assert said == f"offline in place of online ({reason}); send it later: wandb sync {left}"


def test_sync_sends_a_resumed_run_whole(tmp_path: Path):
    """W&B's own command. Catches files that it cannot read, rows lost or twice, another id after a resume."""
    options = ["--run.wandb=offline", "--run.wandb_checkpoints=false", "--run.quiet=true"]
    assert tiny(tmp_path, *options, "--trainer.max_steps=3", command="fit") == 0
    assert tiny(tmp_path, *options, "--resume=auto") == 0
    (folder,) = folders(tmp_path)
    (written,) = folder.glob("wandb/offline-run-*")
    fake = FakeWandb()
    with serve_wandb(fake) as variables:
        program = [sys.executable, "-m", "wandb", "sync", str(written)]
        environment = os.environ | variables | {"HOME": str(tmp_path / "home"), "no_proxy": "*"}
        subprocess.run(program, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert fake.unknown == []
    ((name, run),) = fake.runs.items()
    assert name == f"tiny-{folder.name}"
    assert [row["trainer/global_step"] for row in run.history] == list(range(6))
    logged = [float(row["train/loss"]) for row in rows(folder / "metrics.csv") if row["train/loss"]]
    assert [row["train/loss"] for row in run.history] == pytest.approx(logged, abs=1e-12)
    assert {"best/accuracy", "best/step", "test/accuracy"} <= run.summary.keys()
    assert set(run.settings["tags"]) == {"synthetic", "5-way", "1-shot", "LEO"}
