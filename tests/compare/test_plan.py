"""The plan: what a file may say, and the line for what it may not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from leo_lightning.compare.__main__ import main
from leo_lightning.compare.entrants import digest_of, enter
from leo_lightning.compare.plan import Plan, read_plan
from leo_lightning.data.bank import FeatureBank
from tests.compare.plans import CENTROID, QUICKSTART, tiny_leo, write_plan


def test_defaults_and_flags(tmp_path: Path):
    """Catches a default that is not the documented one, and a flag that loses against the file."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"methods: {{a: {CENTROID}, b: {CENTROID}}}\nsteps: 5\n")
    plan = read_plan(path, steps=7, tasks=None)
    assert (plan.reference, plan.out, plan.root) == ("a", Path("runs/compare/mine"), None)
    assert (plan.way, plan.shot, plan.query, plan.steps, plan.tasks) == (5, 1, 15, 7, 10_000)


def test_changes_of_a_method_win(tmp_path: Path):
    """Catches changes to all methods that undo those of one."""
    path = write_plan(
        tmp_path, set={"model.learning_rate": 1.0}, methods={"a": tiny_leo(**{"model.learning_rate": 2.0})}
    )
    assert read_plan(path).methods[0].changes["model.learning_rate"] == 2.0


def test_points_are_unique(tmp_path: Path):
    """Catches a point of both panels that is evaluated twice, and numbers given twice."""
    plan = read_plan(write_plan(tmp_path, shots=[5, 1, 1], ways=[2, 5]))
    assert plan.points == [(5, 1), (5, 5), (2, 1)]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"stepz": 1}, "unknown field stepz; did you mean steps?"),
    "no number": ({"steps": "many"}, "steps: expected a whole number, got 'many'"),
    "truth for a number": ({"way": True}, "way: expected a whole number, got True"),
    "number too small": ({"way": 1}, "way is 1: it must be at least 2"),
    "one task": ({"tasks": 1}, "tasks is 1: it must be at least 2"),
    "no list": ({"shots": 5}, "shots: expected a list of whole numbers, got 5"),
    "list of text": ({"shots": ["a"]}, "shots: expected a whole number, got 'a'"),
    "list too small": ({"ways": [5, 1]}, "ways is 1: it must be at least 2"),
    "no methods": ({"methods": {}}, "methods: expected a table of label: configuration; name at least one"),
    "unknown reference": (
        {"reference": "leo"},
        "reference: no method is called 'leo'; there are LEO, nearest centroid",
    ),
    "root that is a number": ({"root": 3}, "root: expected a folder, got 3"),
    "shared files": (
        {"methods": {"a b": CENTROID, "A-B": CENTROID}},
        "methods: 'a b' and 'A-B' would share files (a-b); give one another label",
    ),
    "label without a letter": (
        {"methods": {"?": CENTROID}},
        "methods: '?' has no letter or digit; give it another label",
    ),
    "method that is a number": (
        {"methods": {"a": 1}},
        "methods.a: expected the path of a configuration, a list of them, or a table of config and set",
    ),
    "list with a number": (
        {"methods": {"a": [CENTROID, 3]}},
        "methods.a: expected the path of a configuration, a list of them, or a table of config and set",
    ),
    "unknown field of a method": (
        {"methods": {"a": {"config": CENTROID, "sets": {}}}},
        "unknown field methods.a.sets; did you mean set?",
    ),
    "no such configuration": (
        {"methods": {"a": "nowhere.yaml"}},
        "methods.a: nowhere.yaml: no such file; name an existing one",
    ),
    "changes that are no table": ({"set": 1}, "set: expected a table of field: value"),
    "change that is a table": (
        {"set": {"model": {"learning_rate": 1}}},
        "set.model: expected one value, got {'learning_rate': 1}; write the whole field name",
    ),
    "change of what is the same": (
        {"set": {"data.way": 3}},
        "set: data.way is the same for all methods; set it at the top of the plan",
    ),
    "change of what is ours": (
        {"set": {"run.name": "x"}},
        "set: run.name is set by the comparison; leave it out",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_plan_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a mistake that begins a comparison, a traceback, or another line than this."""
    fields, line = BAD[name]
    path = write_plan(tmp_path, **fields)
    assert main(["--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {path}: {line}\n"
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


BAD_LATER: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown field of train.py": (
        {"methods": {"a": tiny_leo(**{"model.learning_rat": 1})}},
        [],
        "methods.a: unknown field model.learning_rat; did you mean model.learning_rate?",
    ),
    "value that no field takes": (
        {"methods": {"a": tiny_leo(**{"model.learner.num_latents": 0})}},
        [],
        "methods.a: num_latents is 0: it must be at least 1",
    ),
    "too many ways": (
        {"ways": [5, 21]},
        [],
        "synthetic test: 20 classes are too few for 21-way tasks; lower ways",
    ),
    "too many shots": (
        {"shots": [196]},
        [],
        "synthetic test: a class has 200 images, 196-shot tasks with 5 queries need 201; "
        "lower shots or query",
    ),
    "too many classes to train on": (
        {"way": 17},
        [],
        "synthetic val: 16 classes are too few for 17-way tasks; lower way",
    ),
    "unknown label": (
        {},
        ["--only", "LEA"],
        "--only: no method is called 'LEA'; there are LEO, nearest centroid",
    ),
    "no features": (
        {"root": "nowhere"},
        [],
        "nowhere: no such folder of features; make it with "
        "`python -m leo_lightning.features import SRC nowhere`",
    ),
}


@pytest.mark.parametrize("name", BAD_LATER)
def test_bad_comparison_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches what is noticed after hours of training only, and a folder that is left behind."""
    fields, flags, line = BAD_LATER[name]
    assert main(["--config", str(write_plan(tmp_path, **fields)), *flags]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "out").exists()


def test_bad_flag_is_one_line(capsys: pytest.CaptureFixture[str]):
    """Catches argparse's own way to end, with the whole usage."""
    assert main(["--config"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _digest(folder: Path, features: str = "f", **fields: Any) -> str:
    folder.mkdir(exist_ok=True)
    plan: Plan = read_plan(write_plan(folder, **fields))
    return enter(plan.methods[0], plan, features).digest


def test_digest_changes_with_what_matters(tmp_path: Path):
    """Catches a run that is used again though its configuration, features or protocol are others, and one
    that is not though only its place, length or evaluation are."""
    first = _digest(tmp_path)
    assert _digest(tmp_path, features="g") != first
    assert _digest(tmp_path, shot=2) != first
    assert _digest(tmp_path, eval_seed=1) != first
    assert _digest(tmp_path, methods={"LEO": tiny_leo(**{"model.learner.kl_weight": 0.5})}) != first
    assert _digest(tmp_path, methods={"LEO": tiny_leo(seed_everything=1)}) != first
    other = {"steps": 50, "tasks": 70, "shots": [1, 2], "methods": {"LEO": tiny_leo()}, "out": "elsewhere"}
    assert _digest(tmp_path, **other) == first
    copied = tmp_path / "copied.yaml"
    copied.write_text(Path(QUICKSTART).read_text())
    assert _digest(tmp_path, methods={"LEO": tiny_leo() | {"config": str(copied)}}) == first


def test_digest_of_features():
    """Catches a digest that is blind to values, classes or splits."""
    rows = torch.arange(12.0).reshape(6, 2)

    def digest(values: torch.Tensor, labels: list[int], split: str = "test") -> str:
        return digest_of({split: FeatureBank.from_arrays(values, labels)})

    found = {
        digest(rows, [0, 0, 0, 1, 1, 1]),
        digest(rows + 1e-6, [0, 0, 0, 1, 1, 1]),
        digest(rows, [0, 0, 1, 1, 1, 1]),
        digest(rows, [0, 0, 0, 1, 1, 1], "val"),
        digest(rows.half(), [0, 0, 0, 1, 1, 1]),
    }
    assert len(found) == 5
    assert digest(rows, [0, 0, 0, 1, 1, 1]) in found
