"""Trained models on a hub; here on one of this machine, which knows the few endpoints that we need."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from leo_lightning import LEOClassifier
from leo_lightning.common.errors import InputError
from leo_lightning.inference.pretrained import CARD, CONFIG, WEIGHTS
from tests.inference.hub_server import Hub, serve_hub
from tests.inference.test_leo_classifier import blobs, leo, save


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without models, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub() as hub:
        api = partial(HfApi, endpoint=hub.address, token="hf_nobody")
        monkeypatch.setattr(huggingface_hub, "HfApi", api)
        yield hub


@pytest.fixture
def model(tmp_path: Path) -> LEOClassifier:
    return LEOClassifier(save(tmp_path / "x.ckpt", leo()))


def test_there_and_back(
    hub: Hub, model: LEOClassifier, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Catches other files or weights than `save_pretrained` writes, progress bars, a need of the network."""
    assert model.push_to_hub("me/leo") == f"{hub.address}/me/leo"
    (files,) = hub.repositories["me/leo"].values()
    assert files.keys() == {CARD, CONFIG, WEIGHTS}
    assert b'from_pretrained("me/leo")' in files[CARD]
    (x, y), (query, _) = blobs(3), blobs(9, seed=1)
    there = LEOClassifier.from_pretrained("me/leo")
    assert (there.fit(x, y).predict_proba(query) == model.fit(x, y).predict_proba(query)).all()
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert LEOClassifier.from_pretrained("me/leo").checkpoint == there.checkpoint
    with pytest.raises(InputError, match="me/other: cannot be fetched"):
        LEOClassifier.from_pretrained("me/other")
    assert not hub.asked
    assert capfd.readouterr() == ("", "")


def test_weights_are_of_the_same_commit(hub: Hub, model: LEOClassifier, tmp_path: Path):
    """Catches a config.json with weights that were pushed in between, and a revision that is ignored."""
    model.push_to_hub("me/leo")
    (first,) = hub.repositories["me/leo"]
    LEOClassifier(save(tmp_path / "y.ckpt", leo(num_latents=6))).push_to_hub("me/leo")
    for revision, latents in ((None, 6), (first, 4)):
        learner = LEOClassifier.from_pretrained("me/leo", revision).fit(*blobs(3)).trained_.learner
        assert learner.init_args()["num_latents"] == latents
    asked = [line for line in hub.asked if WEIGHTS in line]
    assert not any("/resolve/main/" in line for line in asked)


def test_a_model_of_another_library_is_not_downloaded(hub: Hub):
    """Catches gigabytes that are fetched before anybody looks what they are."""
    hub.add("me/bert", {CONFIG: b'{"model_type": "bert"}', WEIGHTS: b"much"})
    with pytest.raises(InputError, match="not a model that save_pretrained wrote"):
        LEOClassifier.from_pretrained("me/bert")
    assert not any(WEIGHTS in line for line in hub.asked)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("me/nothing", "me/nothing: cannot be fetched (404 Client Error. Repository Not Found"),
        ("me/empty", "me/empty: cannot be fetched (404"),
        ("leo", "leo: no such folder, and not the OWNER/NAME"),
        ("../me/leo", "../me/leo: no such folder"),
    ],
)
def test_a_model_that_is_not_there(hub: Hub, name: str, word: str):
    """Catches the lines of advice of another library, and a path that is taken for a name."""
    hub.add("me/empty", {CARD: b""})
    with pytest.raises(InputError) as refused:
        LEOClassifier.from_pretrained(name)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_hub_that_refuses(hub: Hub, model: LEOClassifier):
    """Catches a traceback where a name is not one, or the token has no right to it."""
    with pytest.raises(InputError, match="me/a/b: cannot be pushed") as refused:
        model.push_to_hub("me/a/b")
    assert "\n" not in str(refused.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    """Catches a ModuleNotFoundError that does not say what to install."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        LEOClassifier.from_pretrained("me/leo")
