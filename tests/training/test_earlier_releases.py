"""Stored learners of earlier releases become what this release can build, or are refused by name."""

import importlib

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.training.earlier_releases import LEARNERS, REMOVED, modernized

LEO = f"{LEARNERS}.leo.LEO"
OLD_LEO = {
    "embedding_size": 6, "num_latents": 4, "kl": "sample", "orthogonality": "squared",
    "one_latent_per_class": False, "centroid_scale": 0.0, "centroid_map": False, "test_samples": 2,
}  # fmt: skip


def built(learner: dict) -> object:
    module, _, name = learner["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**learner["init_args"])


def test_a_plain_leo_loses_its_removed_arguments():
    """Catches an old checkpoint or configuration that can no longer be built."""
    stored = {"class_path": LEO, "init_args": OLD_LEO}
    learner = modernized(stored)
    assert learner == {
        "class_path": LEO,
        "init_args": {"embedding_size": 6, "num_latents": 4, "test_samples": 2},
    }
    assert built(learner).test_samples == 2
    assert stored["init_args"]["kl"] == "sample"  # untouched


@pytest.mark.parametrize("with_map", [False, True])
def test_a_leo_beside_a_centroid_is_a_centroid_leo(with_map: bool):
    """Catches a centroid that is lost on the way."""
    arguments = OLD_LEO | {"centroid_scale": 3.0, "centroid_map": with_map}
    learner = modernized({"class_path": LEO, "init_args": arguments})
    assert learner["class_path"] == f"{LEARNERS}.centroid_leo.CentroidLEO"
    leo = built(learner)
    assert (leo.centroid_scale, leo.centroid_map, leo.num_latents) == (3.0, with_map, 4)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (LEO, "kl", "closed_form"),
        (LEO, "orthogonality", "l1"),
        (LEO, "one_latent_per_class", True),
        (f"{LEARNERS}.maml.MAML", "test_steps", 10),
        (f"{LEARNERS}.meta_sgd.MetaSGD", "first_order", True),
        (f"{LEARNERS}.meta_lstm.MetaLSTM", "lstm_size", 10),
        (f"{LEARNERS}.matching.MatchingNetworks", "processing_steps", 1),
    ],
)
def test_another_value_is_refused_by_name(path: str, name: str, value: object):
    """Catches a run that silently becomes another one."""
    with pytest.raises(InputError, match=f"{name} is {value!r}"):
        modernized({"class_path": path, "init_args": {name: value}})


@pytest.mark.parametrize("path", REMOVED)
def test_arguments_at_their_built_in_values_are_dropped(path: str):
    """Catches a class that moved, and an argument that is dropped although the class has it."""
    learner = modernized({"class_path": path, "init_args": dict(REMOVED[path])})
    assert learner == {"class_path": path, "init_args": {}}
    assert not REMOVED[path].keys() & built(learner).init_args().keys()


@pytest.mark.parametrize(
    "learner",
    [
        {"class_path": f"{LEARNERS}.centroid_leo.CentroidLEO", "init_args": {"centroid_scale": 2.0}},
        {"class_path": f"{LEARNERS}.maml.MAML", "init_args": {"first_order": True}},
        {"class_path": "somewhere.else.Method", "init_args": {"kl": "closed_form"}},
        {"class_path": LEO, "init_args": {}},
    ],
)
def test_others_stay_as_they_are(learner: dict):
    """Catches a learner of this release, or of somebody else, that is changed."""
    assert modernized(learner) == learner
    assert modernized({**learner, "init_args": None})["init_args"] == {}
