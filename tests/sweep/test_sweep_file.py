"""Sweep files: what W&B's distributions become, what is refused, and that W&B's agent can run them."""

import copy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from leo_lightning import cli
from leo_lightning.errors import InputError
from leo_lightning.sweep.sweep_file import read_sweep

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
COMMAND = ["${env}", "python", "${program}", "fit", "--config", "configs/quickstart.yaml", "${args}"]


def write(folder: Path, parameters: Any, **fields: Any) -> Path:
    """A sweep file; a field that is None is left out."""
    content = {
        "program": "train.py",
        "method": "random",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "command": COMMAND,
        "parameters": parameters,
        **fields,
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


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
    assert sweep.arguments({"c": 1}) == ["fit", "--config=configs/quickstart.yaml", "--a=3", "--b=x", "--c=1"]


LOG = {"distribution": "log_uniform_values"}
REFUSED = {
    "a: distribution 'normal' is not known": {"parameters": {"a": {"distribution": "normal", "mu": 0}}},
    "a: distribution ['x'] is not known": {"parameters": {"a": {"distribution": ["x"]}}},
    "a: give `value`": {"parameters": {"a": {"min": 3}}},
    "a is 3: write {value: 3}": {"parameters": {"a": 3}},
    "a: uniform needs `max`": {"parameters": {"a": {"distribution": "uniform", "min": 3}}},
    "a: categorical takes no `probabilities`": {
        "parameters": {"a": {"values": [1, 2], "probabilities": [0.1, 0.9]}}
    },
    "a: uniform takes no `q`": {"parameters": {"a": {"min": 0.0, "max": 1.0, "q": 0.1}}},
    "a: min is '1e-4'": {"parameters": {"a": {**LOG, "min": "1e-4", "max": 1.0}}},
    "a: max is inf": {"parameters": {"a": {**LOG, "min": 1.0, "max": float("inf")}}},
    "a: max is True": {"parameters": {"a": {"min": 0.0, "max": True}}},
    "a: min is 0: on a logarithmic scale": {"parameters": {"a": {**LOG, "min": 0, "max": 1.0}}},
    "a: min is 2 and max is 1": {"parameters": {"a": {"min": 2, "max": 1}}},
    "a: q is 0.3: it must divide": {
        "parameters": {"a": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.3}}
    },
    "a: q is -1: it must divide": {
        "parameters": {"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": -1}}
    },
    "a: q_log_uniform_values is for whole": {
        "parameters": {"a": {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}}
    },
    "a: values is 3": {"parameters": {"a": {"values": 3}}},
    "a: values is []": {"parameters": {"a": {"values": []}}},
    "a: [1] is no single value": {"parameters": {"a": {"values": [[1], [2]]}}},
    "a: values has one of them twice": {"parameters": {"a": {"values": [1, 2, 1]}}},
    "a: a grid needs `values`": {"parameters": {"a": {"min": 1, "max": 2}}, "method": "grid"},
    "parameters: it must be": {"parameters": []},
    "parameters: each has one value": {"parameters": {"a": {"value": 1}}},
    "'methud' is no field": {"methud": "bayes"},
    "method is 'tpe'": {"method": "tpe"},
    "metric: it must be": {"metric": {"name": "val/loss", "goal": "minimize"}},
    "command: it must be a list": {"command": None},
    "command: it must be a list like": {"command": [*COMMAND[:3], "fit_test", "${args}"]},
    "command: names no base": {"command": ["${program}", "fit", "${args}"]},
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_files_are_refused(line: str, tmp_path: Path):
    """Catches a mistake that shows only in the trials, or in a traceback of Optuna's."""
    fields = copy.deepcopy(REFUSED[line])
    path = write(tmp_path, fields.pop("parameters", {"a": {"min": 1, "max": 2}}), **fields)
    with pytest.raises(InputError) as error:
        read_sweep(path)
    assert str(error.value).startswith(f"{path}: {line}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[", "3", "", "\x00", "a: 2020-99-99"])
def test_what_is_no_table_is_refused(text: str, tmp_path: Path):
    """Catches a traceback of YAML's."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        read_sweep(path)
    with pytest.raises(InputError, match="No such file"):
        read_sweep(tmp_path / "absent.yaml")


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
        section, *_, field = name.split(".")
        inside = config[section]
        assert (inside["learner"]["init_args"] if ".learner." in name else inside)[field] == value


def test_help_is_quick():
    """Catches torch or Optuna imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys, leo_lightning.sweep.__main__ as s; s._parser().format_help();"
        "print({'torch', 'optuna', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
