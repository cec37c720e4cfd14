"""Trained models as folders of safetensors and JSON."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from leo_lightning import LEOClassifier
from leo_lightning.common.errors import InputError
from leo_lightning.inference.pretrained import CARD, CONFIG, WEIGHTS
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.inference.test_leo_classifier import E, blobs, leo, save
from tests.tiny_run import main, results


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("make", [leo, lambda: MAML(E, hidden_size=4), lambda: PrototypicalNetworks(E)])
def test_a_folder_predicts_what_the_checkpoint_does(
    make: Callable[[], Learner], double: bool, tmp_path: Path
):
    """Catches a lost mean or argument, other weights, float64 cut to float32, and a copy of a copy."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        learner = make().double() if double else make()
    path = save(tmp_path / "x.ckpt", learner, "center_l2", torch.arange(E) / E)
    LEOClassifier(path).save_pretrained(tmp_path / "a" / "b")
    LEOClassifier.from_pretrained(tmp_path / "a" / "b").save_pretrained(tmp_path / "again")
    (x, y), (query, _) = blobs(3), blobs(9, seed=1)
    models = [
        LEOClassifier.from_checkpoint(path),
        LEOClassifier.from_pretrained(tmp_path / "a" / "b"),
        LEOClassifier.from_pretrained(str(tmp_path / "again")),
    ]
    first, *others = (model.fit(x, y).predict_proba(query) for model in models)
    assert all((first == other).all() for other in others)
    learners = [model.trained_.learner.init_args() for model in models]
    assert learners[0] == learners[1] == learners[2]
    assert models[0].trained_.record.state().keys() == models[2].trained_.record.state().keys()
    assert models[0].trained_.record[1:] == models[2].trained_.record[1:]


def test_it_writes_no_code_and_no_pickle(finished_run: Path, tmp_path: Path):
    """Catches a file that could run code, and a record that lacks what the checkpoint has."""
    LEOClassifier(finished_run).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CARD, CONFIG, WEIGHTS}
    assert load_file(tmp_path / WEIGHTS)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["learner"]["init_args"]["num_latents"] == 4
    assert set(config["features"]["fingerprints"]) == {"train", "val", "test"}
    assert len(config["features"]["classes"]) == 64
    assert config["results"] == results(finished_run)


def test_the_card_is_the_hubs(finished_run: Path, tmp_path: Path):
    """Catches front matter that a hub cannot read, and another accuracy than that of the test."""
    LEOClassifier(finished_run).save_pretrained(tmp_path)
    card, found = ModelCard.load(tmp_path / CARD), results(finished_run)
    (measured,) = card.data.eval_results or []
    assert (measured.metric_type, measured.metric_value) == ("accuracy", round(100 * found["accuracy"], 2))
    assert card.data.library_name == "leo-lightning"
    for said in (
        f"**{100 * found['accuracy']:.2f} ± {100 * found['ci95']:.2f} %** accuracy",
        "40 5-way 1-shot test tasks of synthetic",
        f"| command | `{found['command']}` |".replace("<", "&lt;"),
        "| protocol: queries | 15 |",
    ):
        assert said in card.text


def test_results_of_other_weights_are_not_theirs(finished_run: Path, tmp_path: Path):
    """Catches a card with the accuracy that an earlier checkpoint of the run had."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "results.json").write_text(json.dumps(results(finished_run) | {"steps": 5}))
    LEOClassifier(run).save_pretrained(tmp_path / "saved")
    assert "No results of a test" in (tmp_path / "saved" / CARD).read_text()
    (run / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json: damaged"):
        LEOClassifier(run).save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_cell_of_the_card_stays_a_cell(tmp_path: Path):
    """Catches a name in a provenance that leaves its table, or that a page would take for HTML."""
    path = save(tmp_path / "x.ckpt", leo())
    content = torch.load(path, weights_only=True)
    content["EpisodeDataModule"]["provenance"]["dataset"] = "a|b\n<script>"
    torch.save(content, path)
    LEOClassifier(path).save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / CARD).read_text()
    assert "| features: dataset | a\\|b?&lt;script> |\n" in card
    assert "\n<script>" not in card


def test_classify_takes_a_folder(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a command that takes checkpoints only, and other predictions than theirs."""
    monkeypatch.chdir(tmp_path)
    LEOClassifier(finished_run).save_pretrained("saved")
    x, y = blobs(2, size=128)
    np.savez("s.npz", embeddings=x, labels=y)
    for name, path in (("a", finished_run), ("b", "saved")):
        files = ["--support=s.npz", "--query=s.npz", f"--out={name}.csv"]
        assert main(["classify", f"--ckpt_path={path}", *files]) == 0
        assert main(["export", f"--ckpt_path={path}", "--support=s.npz", f"--out={name}.safetensors"]) == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    tensors = [load_file(f"{name}.safetensors")["weight"] for name in "ab"]
    assert torch.equal(*tensors)


def changed(**fields: Any) -> Callable[[Path], object]:
    """A folder whose config.json has other fields."""

    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | fields))

    return change


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])


def of(path: str, **arguments: Any) -> Callable[[Path], object]:
    return changed(learner={"class_path": path, "init_args": arguments})


LEO = "leo_lightning.learners.leo.LEO"
BAD = {
    "cut weights": (cut, f"{WEIGHTS}: damaged"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS}: no such file"),
    "pickled weights": (lambda folder: torch.save({}, folder / WEIGHTS), f"{WEIGHTS}: damaged"),
    "other weights": (lambda folder: save_file({"a": torch.ones(2)}, folder / WEIGHTS), "weights do not fit"),
    "no JSON": (written(CONFIG, b"{"), f"{CONFIG}: damaged"),
    "no text": (written(CONFIG, b"\xff"), f"{CONFIG}: damaged"),
    "deep JSON": (written(CONFIG, b"[" * 10**5), f"{CONFIG}: damaged"),
    "of another library": (
        written(CONFIG, b'{"model_type": "bert"}'),
        "not a model that save_pretrained wrote",
    ),
    "of a later release": (changed(format_version=2, library_version="9.1"), "a later release, 9.1"),
    "without its features": (changed(features={}), "record of its features is damaged"),
    "a class of another package": (of("subprocess.Popen", args="touch hacked"), "'subprocess.Popen'"),
    "a class that is not a learner": (of("leo_lightning.learners.leo.Adaptation"), "which is not imported"),
    "an unknown argument": (
        of(LEO, embedding_size=E, wrong=1),
        "cannot build leo_lightning.learners.leo.LEO",
    ),
    "other sizes": (of(LEO, embedding_size=10**6), "do not fit"),
    "nothing": (lambda folder: [path.unlink() for path in folder.iterdir()], "name a checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_line(case: str, tmp_path: Path):
    """Catches a traceback of another library, a huge model, and code that somebody's file runs."""
    change, word = BAD[case]
    folder = tmp_path / "saved"
    LEOClassifier(save(tmp_path / "x.ckpt", leo())).save_pretrained(folder)
    change(folder)
    with pytest.raises(InputError) as refused:
        LEOClassifier.from_pretrained(folder)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_method_for_functions_is_refused(tmp_path: Path):
    """Catches a folder that nobody can use."""
    path = save(tmp_path / "x.ckpt", GeneralLEO(2, base=MLPRegressor()))
    with pytest.raises(InputError, match="predicts values"):
        LEOClassifier(path).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_damaged_results_are_one_line(tmp_path: Path):
    """Catches a KeyError about a card when somebody's model is saved again."""
    LEOClassifier(save(tmp_path / "x.ckpt", leo())).save_pretrained(tmp_path / "saved")
    changed(results={"accuracy": "x"})(tmp_path / "saved")
    with pytest.raises(InputError, match="results of the model's test are damaged"):
        LEOClassifier.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "again")
