"""The YAML files in configs/ parse, build, and say how they are used."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from leo_lightning.commands.compare.entrants import enter
from leo_lightning.commands.compare.plan import read_plan
from leo_lightning.commands.sweep.sweep_file import read_sweep
from leo_lightning.data.roots import OMNIGLOT
from leo_lightning.learners.centroid_leo import CentroidLEO
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from tests.tiny_run import TINY, folders, main, results

CONFIGS = Path("configs")
PLANS, SWEEPS = sorted(CONFIGS.glob("compare/*.yaml")), sorted(CONFIGS.glob("sweeps/*.yaml"))
METHODS, ABLATIONS = sorted(CONFIGS.glob("methods/*.yaml")), sorted(CONFIGS.glob("ablations/*.yaml"))
TRANSDUCTIVE = {"bdcspn", "label_propagation", "laplacian_shot", "pt_map", "tim", "transductive_finetuning"}
LEARN2LEARN = {"maml_learn2learn": "maml", "meta_sgd_learn2learn": "meta_sgd"}
BASES = [CONFIGS / f"miniimagenet_5way_{shot}shot.yaml" for shot in (1, 5)]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_configuration_builds_its_method(path: Path):
    """Catches a class that moved, an argument that it lacks, and the name or command of another method."""
    header, config = path.read_text(), yaml.safe_load(path.read_text())
    learner = config["model"]["learner"]
    module, _, name = learner["class_path"].rpartition(".")
    built = getattr(importlib.import_module(module), name)(**learner.get("init_args", {}))
    assert isinstance(built, Learner)
    built.take_size(8)
    assert built.trained == bool(list(built.parameters()))
    assert built.init_args().items() >= learner.get("init_args", {}).items()
    assert config["run"]["name"] == path.stem
    assert f"--config {path} " in header


@pytest.mark.parametrize(("theirs", "ours"), LEARN2LEARN.items())
def test_learn2learn_runs_with_our_settings(theirs: str, ours: str):
    """Catches a comparison of two settings."""
    configs = [yaml.safe_load((CONFIGS / f"methods/{name}.yaml").read_text()) for name in (theirs, ours)]
    mine, other = (config["model"].pop("learner") for config in configs)
    assert mine["init_args"] == other["init_args"]
    for config in configs:
        del config["run"]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("shot", [1, 5])
def test_a_centroid_leo_keeps_the_settings_below_it(shot: int, tmp_path: Path):
    """Catches an overlay of another class that throws the published hyperparameters away."""
    base, overlay = CONFIGS / f"miniimagenet_5way_{shot}shot.yaml", CONFIGS / f"leo_centroid_{shot}shot.yaml"
    (tmp_path / "plan.yaml").write_text(f"root: null\nmethods: {{method: [{base}, {overlay}]}}\n")
    plan = read_plan(tmp_path / "plan.yaml", out=tmp_path)
    built = enter(plan.methods[0], plan, "features")[0].learner
    arguments = [
        yaml.safe_load(path.read_text())["model"]["learner"]["init_args"] for path in (base, overlay)
    ]
    assert isinstance(built, CentroidLEO)
    expected = {name: float(value) for name, value in (arguments[0] | arguments[1]).items()}
    assert {name: built.init_args()[name] for name in expected} == expected


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_method_of_a_plan_can_be_made(path: Path):
    """Catches a misspelt field, a file that was renamed, and a row whose overlay changes nothing."""
    plan = replace(read_plan(path), root=None)  # synthetic features, which need no download
    entrants = [enter(method, plan, "features")[0] for method in plan.methods]
    assert len({entrant.digest for entrant in entrants}) == len(entrants)


def test_the_plans_have_every_method():
    """Catches a method that nobody compares."""
    for path in PLANS:
        if path.stem == "quickstart":
            continue
        used = {config for method in read_plan(path).methods for config in method.configs}
        wrappers = {each for each in METHODS if each.stem in LEARN2LEARN}
        assert used >= {*METHODS, *ABLATIONS} - wrappers


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_files_are_read(path: Path):
    """Catches a sweep whose base configuration is gone, or that W&B's format does not have."""
    sweep = read_sweep(path)
    configs = [Path(word.partition("=")[2]) for word in sweep.command if word.startswith("--config=")]
    assert configs
    assert all(config.is_file() for config in configs)


def test_every_trained_method_has_a_sweep():
    """Catches a method whose hyperparameters were not searched."""
    searched = {path.stem for path in SWEEPS}
    assert {path.stem for path in METHODS} - {"nearest_centroid", *LEARN2LEARN, *TRANSDUCTIVE} <= searched


EXPECTED = {
    "generator_only": {"latent_steps": 0, "finetuning_steps": 0},
    "generator_finetuning": {"latent_steps": 0},
    "random_prior": {"random_prior": True},
    "deterministic": {"deterministic": True},
    "no_finetuning": {"finetuning_steps": 0},
}


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("base", BASES, ids=lambda path: path.stem)
def test_an_ablation_changes_what_it_names_and_nothing_else(path: Path, base: Path, tmp_path: Path):
    """Catches an ablation with other hyperparameters than LEO's."""
    text = f"root: null\nmethods: {{base: {base}, ablation: [{base}, {path}]}}\n"
    (tmp_path / "plan.yaml").write_text(text)
    plan = read_plan(tmp_path / "plan.yaml", out=tmp_path)
    before, after = (enter(method, plan, "")[0].learner for method in plan.methods)
    assert isinstance(after, LEO)
    changed = {name: value for name, value in after.init_args().items() if before.init_args()[name] != value}
    assert changed == EXPECTED[path.stem]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_runs_out_of_the_box(path: Path, tmp_path: Path):
    """Catches a configuration that needs features of its own, or settings that the default data refuse."""
    if path.stem in LEARN2LEARN:
        pytest.importorskip("learn2learn")
    sizes = [word for word in TINY if not word.startswith(("--model.learner.", "--data.root"))]
    assert main(["fit_test", f"--config={path}", *sizes, f"--run.root={tmp_path}"]) == 0
    (folder,) = folders(tmp_path, path.stem)
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]["root"] == OMNIGLOT
    assert results(folder)["tasks"] == 40
