"""Sweep files: what W&B's distributions become, and that W&B's agent can run them."""

import os
import queue
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from leo_lightning.commands import train as cli
from leo_lightning.commands.sweep.search import base_value
from leo_lightning.commands.sweep.sweep_file import EarlyEnd, read_sweep
from tests.commands.sweep.sweeps import ROOT, TINY, write
from tests.runs.loggers.wandb_file import read_back
from tests.tiny_run import folders

SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
DRAWN = {
    "int_uniform, inferred": ({"min": 1, "max": 9}, IntDistribution(1, 9)),
    "uniform, inferred": ({"min": 0.0, "max": 1}, FloatDistribution(0.0, 1.0)),
    "int_uniform": ({"distribution": "int_uniform", "min": 32, "max": 64}, IntDistribution(32, 64)),
    "uniform": ({"distribution": "uniform", "min": 0, "max": 1}, FloatDistribution(0.0, 1.0)),
    "log_uniform_values": (
        {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        FloatDistribution(1e-4, 1e-2, log=True),
    ),
    "q_uniform, whole": (
        {"distribution": "q_uniform", "min": 32, "max": 128, "q": 32},
        IntDistribution(32, 128, step=32),
    ),
    "q_uniform": (
        {"distribution": "q_uniform", "min": 0.0, "max": 0.6, "q": 0.1},
        FloatDistribution(0.0, 0.6, step=0.1),
    ),
    "q_uniform, q = 1": ({"distribution": "q_uniform", "min": 1, "max": 5}, IntDistribution(1, 5)),
    "q_log_uniform_values": (
        {"distribution": "q_log_uniform_values", "min": 8, "max": 128},
        IntDistribution(8, 128, log=True),
    ),
    "values": ({"values": ["l2", "none", None, 3, 0.5, True]}, ["l2", "none", None, 3, 0.5, True]),
    "categorical": ({"distribution": "categorical", "values": [4, 8]}, [4, 8]),
}


@pytest.mark.parametrize("case", DRAWN)
def test_distributions_are_wandbs(case: str, tmp_path: Path):
    """Against W&B's own conversion for Optuna, too. Catches a range on the wrong scale, or ints as floats."""
    given, expected = DRAWN[case]
    expected = CategoricalDistribution(expected) if isinstance(expected, list) else expected
    assert read_sweep(write(tmp_path, {"a.b": given})).space == {"a.b": expected}
    theirs = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna").sweep_parameter_to_distribution(given)
    assert theirs == expected


def test_a_parameter_with_one_value_is_a_flag(tmp_path: Path):
    """Catches a constant that is searched, or forgotten."""
    parameters = {"a": {"value": 3}, "b": {"values": ["x"]}, "c": {"min": 0, "max": 1}}
    sweep = read_sweep(write(tmp_path, parameters))
    assert sweep.constants == {"a": 3, "b": "x"}
    assert list(sweep.space) == ["c"]
    assert sweep.arguments({"c": 1}) == ["fit", "--config=configs/leo.yaml", "--a=3", "--b=x", "--c=1"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_command_of_wandbs_agent_is_accepted(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Composed by W&B's code. Catches a sweep that runs here, and that no agent of W&B's can run."""
    monkeypatch.chdir(ROOT)
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    content = yaml.safe_load(path.read_text())
    sweep = read_sweep(path)
    values = {
        name: drawn.choices[-1] if isinstance(drawn, CategoricalDistribution) else drawn.low
        for name, drawn in sweep.space.items()
        if isinstance(drawn, CategoricalDistribution | FloatDistribution | IntDistribution)
    }
    args = {"args": {name: {"value": value} for name, value in {**sweep.constants, **values}.items()}}
    replaced = utils.create_sweep_command_args(args) | {"program": [content["program"]], "env": ["env"]}
    composed = []
    for word in utils.create_sweep_command(content["command"]):
        macro = word[2:-1] if word.startswith("${") else None
        composed += replaced[macro] if macro else [word]
    assert composed[:4] == ["env", "python", "train.py", sweep.command[0]]
    theirs = [word for word in composed[3:] if not word.startswith("--run.wandb")]
    ours = [word for word in sweep.arguments(values) if not word.startswith("--run.wandb")]
    assert shlex.join(theirs) == shlex.join(ours)
    with pytest.raises(SystemExit) as ended:
        cli.main([*composed[3:], "--print_config"])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["run"]["wandb"] == "online"
    for name, value in values.items():
        assert base_value(config, name) == value


@pytest.mark.slow
def test_an_agent_of_wandbs_runs_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By W&B's agent, offline. Catches a run under another id than the agent's, or without its score."""
    agents = pytest.importorskip("wandb.wandb_agent")
    monkeypatch.chdir(ROOT)
    # the agent changes these, and its child inherits them
    for name, value in (
        ("SWEEP_ID", "sweep"),
        ("RUN_ID", ""),
        ("SWEEP_PARAM_PATH", ""),
        ("DIR", str(tmp_path)),
    ):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    content = yaml.safe_load((ROOT / "configs" / "sweeps" / "quickstart.yaml").read_text())
    agent = agents.Agent(api=None, queue=queue.Queue(), sweep_id="sweep")
    agent._sweep_command = [*content["command"], *TINY, f"--run.root={tmp_path}", "--run.quiet=true"]
    rate = {"model.learning_rate": {"value": 0.002}}
    agent._command_run({"run_id": "asked4", "program": content["program"], "args": rate})
    assert agent._run_processes["asked4"].wait() == 0
    (folder,) = folders(tmp_path, "leo")
    found = read_back(folder)
    assert found.record.run_id == "asked4"
    assert content["metric"]["name"] in {name for row in found.history for name in row}
    assert found.config["model"]["learning_rate"] == 0.002


def test_an_early_end_is_counted_in_validations(tmp_path: Path):
    """Catches W&B's own default of eta that is not ours, and the field lost."""
    given = {"type": "hyperband", "min_iter": 2}
    assert read_sweep(
        write(tmp_path, {"a": {"values": [1, 2]}}, early_terminate=given)
    ).early_end == EarlyEnd(min_iter=2, eta=3)
    assert read_sweep(write(tmp_path, {"a": {"values": [1, 2]}})).early_end is None


def test_help_is_quick():
    """Catches torch or Optuna imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys, leo_lightning.commands.sweep.command as s; s._parser().format_help();"
        "print({'torch', 'optuna', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
