"""A checkpoint knows how it was trained; a configuration that lies beside it is data."""

import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.splits import save_splits
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.training.meta_learner import MetaLearner
from tests.tiny_run import folders, main, results, tiny


def features(folder: Path, seed: int, splits: Mapping[str, int], **provenance: str) -> Path:
    """Features of size 8 around a mean far from 0, so that normalisations differ."""
    random = np.random.default_rng(seed)

    def bank(split: str, classes: int) -> FeatureBank:
        centers = random.normal(size=(classes, 1, 8)) + 4
        rows = (centers + random.normal(size=(classes, 20, 8))).reshape(-1, 8).astype(np.float32)
        labels = [f"{split}{row // 20}" for row in range(len(rows))]
        return FeatureBank.from_arrays(rows, labels, None, {"split": split, **provenance})

    save_splits([(split, bank(split, classes)) for split, classes in splits.items()], folder)
    return folder


SPLITS = {"train": 8, "val": 6, "test": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features, `mine` and `other`, and the run `runs/tiny` that was trained on `mine`."""
    place = tmp_path_factory.mktemp("place")
    features(place / "mine", 0, SPLITS, dataset="mine", backbone="conv4")
    features(place / "other", 1, {"test": 7}, dataset="other", backbone="conv4")
    before = Path.cwd()
    os.chdir(place)
    flags = ["--data.root=mine", "--data.shot=2", "--data.normalize=center_l2", "--data.query=5"]
    assert tiny(Path("runs"), *flags, "--trainer.max_steps=12") == 0
    os.chdir(before)
    return place


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder; the working directory is `place`."""
    monkeypatch.chdir(place)
    return folders(Path("runs"))[0]


def moved_alone(run: Path, to: Path) -> str:
    return str(shutil.copy(run / "checkpoints" / "best.ckpt", to / "renamed.ckpt"))


def beside_another_config(run: Path, to: Path) -> str:
    (to / "checkpoints").mkdir()
    (to / "config.yaml").write_text("data: {shot: 5, root: other}\nmodel: {learning_rate: 1.0}\n")
    return str(shutil.copy(run / "checkpoints" / "best.ckpt", to / "checkpoints" / "best.ckpt"))


def through_a_link(run: Path, to: Path) -> str:
    (to / "checkpoints").symlink_to((run / "checkpoints").absolute())
    return str(to / "checkpoints" / "best.ckpt")


def the_run_folder(run: Path, to: Path) -> str:
    return str(run)


def from_inside(run: Path, to: Path) -> str:
    """The name alone, typed in `checkpoints`, where the features are found by the same path."""
    (run / "checkpoints" / "mine").symlink_to(Path("mine").absolute())
    os.chdir(run / "checkpoints")
    return "best.ckpt"


@pytest.mark.parametrize(
    "place_it", [moved_alone, beside_another_config, through_a_link, the_run_folder, from_inside]
)
def test_a_checkpoint_that_was_moved_is_tested_as_it_was_trained(
    run: Path, tmp_path: Path, place_it: Callable[[Path, Path], str], monkeypatch: pytest.MonkeyPatch
):
    """Catches a test with the quickstart's settings and synthetic features, of which nothing is said."""
    expected, start = results(run)["accuracy"], Path.cwd()
    path = place_it(run, tmp_path)
    assert main(["test", f"--ckpt_path={path}", f"--run.root={tmp_path / 'runs'}", "--run.name=tiny"]) == 0
    monkeypatch.chdir(start)
    assert results(folders(tmp_path / "runs")[0])["accuracy"] == expected


def test_a_config_beside_the_checkpoint_is_named_if_it_differs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches an edited config.yaml that is silently without effect."""
    edited = Path(shutil.copytree(run, tmp_path / "edited"))
    command = ["validate", f"--ckpt_path={edited}", f"--run.root={tmp_path}"]
    assert main(command) == 0
    assert "config.yaml is not used" not in capsys.readouterr().out
    config = (edited / "config.yaml").read_text()
    (edited / "config.yaml").write_text(config.replace("shot: 2", "shot: 5"))
    assert main(command) == 0
    assert "config.yaml is not used" in capsys.readouterr().out


def test_flags_win_over_the_record_and_are_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a test whose settings differ from the training's without a word."""
    flags = ["--data.shot=5", "--data.test_tasks=10", f"--run.root={tmp_path}"]
    assert main(["test", f"--ckpt_path={run}", *flags]) == 0
    said = capsys.readouterr().out
    assert "changed data.shot: 2 → 5" in said
    assert results(folders(tmp_path)[0])["protocol"]["shot"] == 5


def test_other_features_are_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a cross-domain test that is reported as an ordinary one, or refused for its missing splits."""
    flags = ["--data.root=other", f"--run.root={tmp_path}", "--run.quiet=false"]
    assert main(["test", f"--ckpt_path={run}", *flags]) == 0
    said = capsys.readouterr().out
    assert (
        "other/test.safetensors: these features differ from the ones used in training (dataset mine → other)"
        in said
    )
    assert "conv4" not in said


def test_the_mean_is_that_of_the_training(run: Path, place: Path):
    """Catches rows of another data set, centred on its own mean."""
    model = MetaLearner.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    alone = EpisodeDataModule("other", shot=2, query=5, normalize="center_l2", test_tasks=20)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with warnings.catch_warnings(action="ignore"):  # the callbacks of the run are missing
        trainer.test(model, alone, ckpt_path=run / "checkpoints/best.ckpt", verbose=False, weights_only=True)
    trained = EpisodeDataModule("mine", normalize="center_l2").normalization.mean
    mean = alone.normalization.mean
    assert mean is not None
    assert trained is not None
    torch.testing.assert_close(mean, trained, rtol=0, atol=0)


@pytest.mark.parametrize("verb", ["test", "validate", "predict", "fit"])
def test_another_normalization_needs_consent(
    run: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
):
    """Catches embeddings that are normalised in another way than the learner has seen."""
    flags = ["--data.normalize=l2", "--trainer.max_steps=14", f"--run.root={tmp_path}"]
    path = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path)
    assert main([verb, f"--ckpt_path={path}", *flags]) == 2
    assert "renormalize" in capsys.readouterr().err
    assert main([verb, f"--ckpt_path={path}", *flags, "--data.renormalize=true"]) == 0


@pytest.mark.parametrize("verb", ["test", "fit"])
def test_a_resumed_run_goes_on_as_it_was(run: Path, tmp_path: Path, verb: str):
    """Catches a copied last.ckpt that continues on synthetic features, at the rate of the quickstart."""
    path = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path)
    flags = ["--trainer.max_steps=14", f"--run.root={tmp_path}", "--run.name=again"]
    assert main([verb, f"--ckpt_path={path}", *flags]) == 0
    before = yaml.safe_load((run / "config.yaml").read_text())
    after = yaml.safe_load((folders(tmp_path, "again")[0] / "config.yaml").read_text())
    assert after["data"] == before["data"]
    assert after["model"]["learner"] == before["model"]["learner"]


def without_record(checkpoint: Path, to: Path) -> Path:
    """A checkpoint as an earlier release wrote it: its run's config.yaml says how to use it."""
    content = torch.load(checkpoint, weights_only=True)
    for key in ("config", "datamodule_hyper_parameters"):
        del content[key]
    to.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, to)
    return to


@pytest.mark.parametrize("verb", ["test", "fit"])
def test_a_checkpoint_that_tells_too_little_is_refused(
    run: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
):
    """Catches the quickstart's data in place of unknown data."""
    path = without_record(run / "checkpoints" / "last.ckpt", tmp_path / "old.ckpt")
    assert main([verb, f"--ckpt_path={path}", f"--run.root={tmp_path}"]) == 2
    assert re.search("records no configuration.*--config", capsys.readouterr().err)
    named = [f"--config={run / 'config.yaml'}", f"--run.root={tmp_path}", "--trainer.max_steps=14"]
    assert main([verb, f"--ckpt_path={path}", *named]) == 0


def test_a_checkpoint_made_in_python_is_tested_with_its_data(run: Path, tmp_path: Path):
    """Catches the quickstart's data for a checkpoint that a script of Lightning's has written."""
    data = EpisodeDataModule(Path("mine"), shot=3, query=5, steps_per_epoch=4, val_tasks=8, test_tasks=30)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(MetaLearner(PrototypicalNetworks(8)), data)
    trainer.save_checkpoint(path := tmp_path / "python.ckpt")
    expected = trainer.test(datamodule=data, model=trainer.lightning_module, verbose=False)[0][
        "test/accuracy"
    ]
    assert main(["test", f"--ckpt_path={path}", f"--run.root={tmp_path}"]) == 0
    found = results(folders(tmp_path, "leo")[0])
    assert found["protocol"]["shot"] == 3
    assert found["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert main(["fit", f"--ckpt_path={path}"]) == 2


MARK = "Path('executed').touch()"
LAMBDA = {  # sympy evaluates what it is given
    "class_path": "sympy.Lambda",
    "init_args": {"signature": "x", "expr": f"__import__('pathlib').{MARK}"},
}


def schedule(function: Any) -> dict[str, Any]:
    path = "torch.optim.lr_scheduler.LambdaLR"
    return {"model": {"lr_scheduler": {"class_path": path, "init_args": {"lr_lambda": function}}}}


def callback(path: str, **arguments: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": [{"class_path": path, "init_args": arguments}]}}


LAMBDA_CALLBACK = "pytorch_lightning.callbacks.LambdaCallback"
FORGED: list[Callable[[], dict[str, Any]]] = [
    lambda: schedule(LAMBDA),
    lambda: schedule("unpacked.function"),
    lambda: schedule("torch.optim.optimizer.os.system"),
    lambda: callback(LAMBDA_CALLBACK, setup=LAMBDA),
    lambda: callback(LAMBDA_CALLBACK, setup="unpacked.function"),
    lambda: callback("unpacked.Callback"),
    lambda: {"trainer": "unpacked.yaml"},
    lambda: {"run": {"class_path": "os.system"}},
    lambda: {"trainer": {"callbacks": "unpacked.yaml"}},
    lambda: {"trainer": {"strategy": {"class_path": "unpacked.Strategy"}}},
    lambda: {"trainer": {"logger": {"class_path": "unpacked.Logger"}}},
    lambda: {"model": {"learner": {"class_path": "unpacked.Learner"}}},
    lambda: {"data": {"class_path": "unpacked.Data"}},
    lambda: {"data": {"class_path": "leo_lightning.data.datamodule.Path", "init_args": {"root": "x"}}},
]


def merged(config: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The configuration with some fields of its sections changed."""
    sections = {
        name: config[name] | fields if isinstance(fields, dict) else fields for name, fields in change.items()
    }
    return config | sections


@pytest.mark.parametrize("recorded", [False, True], ids=["config.yaml", "checkpoint"])
@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_nothing_that_is_found_is_executed(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forged: Callable[[], dict[str, Any]],
    recorded: bool,
):
    """Catches a class or function of an unpacked folder, or of any library, that a configuration runs."""
    config = merged(yaml.safe_load((run / "config.yaml").read_text()), forged())
    config["data"]["init_args"] = config["data"].get("init_args", {}) | {"root": str(Path("mine").absolute())}
    unpacked = tmp_path / "unpacked"
    path = without_record(run / "checkpoints" / "last.ckpt", unpacked / "checkpoints" / "last.ckpt")
    if recorded:
        torch.save(torch.load(path, weights_only=True) | {"config": config}, path)
    (unpacked / "config.yaml").write_text(yaml.safe_dump(config))
    evil = f"from pathlib import Path\n{MARK}\ndef function(*a):\n    {MARK}\n"
    (unpacked / "unpacked.py").write_text(evil + "class Callback: pass\n")
    content = callback("unpacked.Callback")["trainer"]
    (unpacked / "unpacked.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(unpacked)
    monkeypatch.syspath_prepend(str(unpacked))
    monkeypatch.delitem(sys.modules, "unpacked", raising=False)
    flags = [f"--ckpt_path={path}", f"--run.root={tmp_path / 'runs'}", "--run.name=x"]
    for verb, more in (("fit", "--trainer.max_steps=14"), ("test", "--data.test_tasks=8")):
        assert main([verb, *flags, more]) in (0, 2)
    assert main(["figures", "adaptation", f"--ckpt_path={path}", "--out=figures", "--tasks=8"]) in (0, 2)
    assert not Path("executed").exists()
    assert not list(tmp_path.rglob("executed"))


def test_classes_of_torch_and_lightning_come_back(run: Path, tmp_path: Path):
    """Catches a resume that loses, or refuses, a schedule or a callback of a training."""
    flags = [
        "--trainer.callbacks+=ModelSummary", "--trainer.callbacks.max_depth=2",
        "--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=5",
    ]  # fmt: skip
    assert tiny(tmp_path, *flags, command="fit") == 0
    path = shutil.copy(folders(tmp_path)[0] / "checkpoints" / "last.ckpt", tmp_path)
    assert main(["fit", f"--ckpt_path={path}", f"--run.root={tmp_path / 'b'}", "--trainer.max_steps=8"]) == 0
    config = yaml.safe_load((folders(tmp_path / "b")[0] / "config.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["init_args"]["max_depth"] == 2
    assert config["model"]["lr_scheduler"]["init_args"]["step_size"] == 5


def resumed(run: Path, to: Path, *flags: str, kind: str = "last", steps: int = 18) -> Path:
    """A copy of the run, resumed from one of its checkpoints; the folder that was trained in."""
    shutil.copytree(run, to / "tiny" / "a")
    path = to / "tiny" / "a" / "checkpoints" / f"{kind}.ckpt"
    words = [f"--ckpt_path={path}", f"--run.root={to}", "--run.name=tiny", f"--trainer.max_steps={steps}"]
    assert main(["fit", *words, *flags]) == 0
    return max(folders(to), key=lambda folder: (folder / "config.yaml").stat().st_mtime_ns)


def state(folder: Path, kind: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{kind}.ckpt", weights_only=True)


def test_a_changed_learning_rate_is_used(run: Path, tmp_path: Path):
    """Catches a rate that is said and written to config.yaml while the optimiser keeps the old one."""
    same = state(resumed(run, tmp_path / "a"))
    other = state(resumed(run, tmp_path / "b", "--model.learning_rate=0.01"))
    assert other["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    assert same["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3
    name = next(iter(same["state_dict"]))
    assert not torch.equal(same["state_dict"][name], other["state_dict"][name])


def test_a_schedule_is_not_changed_in_its_course(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a cosine that is said to be longer, and climbs again after its end."""
    cosine = ["--model.lr_scheduler=CosineAnnealingLR", "--model.lr_scheduler.T_max=6"]
    assert tiny(tmp_path, *cosine, command="fit") == 0
    again = ["fit", "--resume=auto", f"--run.root={tmp_path}", "--run.name=tiny", "--trainer.max_steps=9"]
    for change in ("--model.lr_scheduler.T_max=9", "--model.learning_rate=0.01"):
        assert main([*again, change]) == 2
        assert "the optimiser in the checkpoint keeps its own" in capsys.readouterr().err
    assert main(again) == 0


def test_learned_rates_are_not_settings(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a setting that is said to change, and which the weights of the checkpoint replace."""
    for verb in ("test", "fit"):
        flags = ["--model.learner.latent_lr=9", f"--run.root={tmp_path}", "--trainer.max_steps=18"]
        assert main([verb, f"--ckpt_path={run}", *flags]) == 2
        assert "model.learner.latent_lr is where training starts" in capsys.readouterr().err


def test_an_earlier_checkpoint_leaves_the_later_one(run: Path, tmp_path: Path):
    """Catches a last.ckpt that is lost because best.ckpt of the same run was resumed."""
    first = tmp_path / "tiny" / "a" / "checkpoints" / "last.ckpt"
    shutil.copytree(run, tmp_path / "copy")
    early = torch.load(tmp_path / "copy" / "checkpoints" / "best.ckpt", weights_only=True) | {
        "global_step": 3
    }
    torch.save(early, tmp_path / "copy" / "checkpoints" / "best.ckpt")
    folder = resumed(tmp_path / "copy", tmp_path, kind="best", steps=6)
    assert folder != first.parents[1]
    assert first.read_bytes() == (run / "checkpoints" / "last.ckpt").read_bytes()


def test_another_validation_chooses_another_best(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches the best of an easier validation, which no harder one ever replaces."""
    folder = resumed(run, tmp_path, "--data.way=6", "--data.shot=1")
    assert "validation has changed" in capsys.readouterr().out
    assert state(folder, "best")["global_step"] > state(run)["global_step"]


def test_classes_that_were_trained_on_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a score on training classes that passes for one on new classes."""
    (tmp_path / "leak").mkdir()
    shutil.copy("mine/train.safetensors", tmp_path / "leak" / "test.safetensors")
    flags = [f"--data.root={tmp_path / 'leak'}", f"--run.root={tmp_path}", "--data.test_tasks=8"]
    assert main(["test", f"--ckpt_path={run}", *flags]) == 0
    assert "8 of 8 classes have the names of training classes" in capsys.readouterr().out
    assert any("training classes" in note for note in results(folders(tmp_path)[0])["notes"])


def test_an_edited_config_is_kept(run: Path, tmp_path: Path):
    """Catches settings that somebody wrote into config.yaml, gone with the next resume; a false history."""
    edited = Path(shutil.copytree(run, tmp_path / "tiny" / "b"))
    text = (edited / "config.yaml").read_text().replace("shot: 2", "shot: 5")
    (edited / "config.yaml").write_text(text)
    flags = [f"--ckpt_path={edited}", "--trainer.max_steps=18", f"--run.root={tmp_path}"]
    assert main(["fit", *flags]) == 0
    assert (edited / "config-unused.yaml").read_text() == text
    before = yaml.safe_load((edited / "config-until-step-12.yaml").read_text())
    assert (before["data"]["init_args"]["shot"], before["trainer"]["max_steps"]) == (2, 12)


def test_consent_is_for_one_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a normalisation that needs no consent any more because a run had it once."""
    folder = resumed(run, tmp_path, "--data.normalize=l2", "--data.renormalize=true")
    flags = [f"--ckpt_path={folder}", f"--run.root={tmp_path}"]
    assert main(["test", *flags, "--data.normalize=none"]) == 2
    assert "renormalize" in capsys.readouterr().err
    assert main(["validate", *flags]) == 0


def test_an_evaluation_writes_the_model_that_it_has(run: Path, tmp_path: Path):
    """Catches a config.yaml of a test with the quickstart's learning rate, a difference that there is not."""
    assert main(["test", f"--ckpt_path={run}", f"--run.root={tmp_path}", "--data.test_tasks=8"]) == 0
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, folders(tmp_path)[0])]
    assert configs[0]["model"] == configs[1]["model"]


def test_the_end_by_early_stopping_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a training that ends long before its last step without a reason."""
    stops = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/accuracy",
             "--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=1"]  # fmt: skip
    assert tiny(tmp_path, *stops, "--trainer.max_steps=30", command="fit") == 0
    assert re.search(r"stopped by EarlyStopping after step \d+", capsys.readouterr().out)


def test_the_best_score_is_shown_after_a_resume(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a progress line whose best score is that of the resumed part."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    content = state(copy)
    (key,) = [key for key in content["callbacks"] if key.startswith("BestCheckpoint")]
    content["callbacks"][key]["best_model_score"] = torch.tensor(0.987)
    torch.save(content, copy / "checkpoints" / "last.ckpt")
    resumed(copy, tmp_path, steps=15)
    assert set(re.findall(r"best (\S+)", capsys.readouterr().out)) == {"0.987"}
