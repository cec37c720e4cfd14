"""The plan: what a file says, and which runs it can use again."""

from pathlib import Path
from typing import Any

import torch

from leo_lightning.commands.compare.entrants import digest_of, enter
from leo_lightning.commands.compare.plan import read_plan
from leo_lightning.data.bank import FeatureBank
from tests.commands.compare.plans import CENTROID, QUICKSTART, tiny_leo, write_plan


def test_defaults_and_flags(tmp_path: Path):
    """Catches a default that is not the documented one, and a flag that loses against the file."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"methods: {{a: {CENTROID}, b: {CENTROID}}}\nsteps: 5\n")
    plan = read_plan(path, steps=7, tasks=None)
    assert (plan.reference, plan.out, plan.root) == ("a", Path("runs/compare/mine"), "omniglot")
    assert (plan.way, plan.shot, plan.query, plan.steps, plan.tasks) == (5, 1, 15, 7, 10_000)


def test_changes_of_a_method_win(tmp_path: Path):
    """Catches changes to all methods that undo those of one."""
    path = write_plan(
        tmp_path, set={"model.learning_rate": 1.0}, methods={"a": tiny_leo(**{"model.learning_rate": 2.0})}
    )
    assert read_plan(path).methods[0].changes["model.learning_rate"] == 2.0


def test_a_method_by_its_short_name(tmp_path: Path):
    """Catches a plan that needs the path of a class."""
    changes = {"model.learner": "ANIL", "model.learner.steps": 3}
    plan = read_plan(write_plan(tmp_path, methods={"a": {"config": QUICKSTART, "set": changes}}))
    assert enter(plan.methods[0], plan, "")[0].config["model"]["learner"]["class_path"].endswith(".anil.ANIL")


def test_points_are_unique(tmp_path: Path):
    """Catches a point of both panels that is evaluated twice, and numbers given twice."""
    plan = read_plan(write_plan(tmp_path, shots=[5, 1, 1], ways=[2, 5]))
    assert plan.points == [(5, 1), (5, 5), (2, 1)]


def _digest(folder: Path, features: str = "f", **fields: Any) -> str:
    folder.mkdir(exist_ok=True)
    plan = read_plan(write_plan(folder, **fields))
    return enter(plan.methods[0], plan, features)[0].digest


def test_digest_changes_with_what_matters(tmp_path: Path):
    """Catches a run that is used again though its configuration, features or protocol are others, and one
    that is not though only its place, length or evaluation are."""
    first = _digest(tmp_path)
    assert _digest(tmp_path, features="g") != first
    assert _digest(tmp_path, shot=2) != first
    assert _digest(tmp_path, eval_seed=1) != first
    assert _digest(tmp_path, methods={"LEO": tiny_leo(**{"model.learner.kl_weight": 0.5})}) != first
    assert _digest(tmp_path, patience=3) != first
    other = {
        "steps": 50,
        "tasks": 70,
        "shots": [1, 2],
        "methods": {"LEO": tiny_leo()},
        "out": "elsewhere",
        "seeds": [3],
    }
    assert _digest(tmp_path, **other) == first
    assert _digest(tmp_path, methods={"LEO": tiny_leo(**{"data.unknown": 2})}) == first
    copied = tmp_path / "copied.yaml"
    copied.write_text(Path(QUICKSTART).read_text())
    assert _digest(tmp_path, methods={"LEO": tiny_leo() | {"config": str(copied)}}) == first


def test_digest_of_features():
    """Catches a digest that is blind to values, classes or splits."""
    rows = torch.arange(12.0).reshape(6, 2)

    def digest(values: torch.Tensor, labels: list[int], split: str = "test") -> str:
        return digest_of({split: FeatureBank.from_arrays(values, labels)})

    digests = {
        digest(rows, [0, 0, 0, 1, 1, 1]),
        digest(rows + 1e-6, [0, 0, 0, 1, 1, 1]),
        digest(rows, [0, 0, 1, 1, 1, 1]),
        digest(rows, [0, 0, 0, 1, 1, 1], "val"),
        digest(rows.half(), [0, 0, 0, 1, 1, 1]),
    }
    assert len(digests) == 5
    assert digest(rows, [0, 0, 0, 1, 1, 1]) in digests
