"""Learners that earlier releases stored, in checkpoints and in config.yaml, as this release names them."""

from collections.abc import Mapping
from typing import Any

from leo_lightning.common.errors import InputError

LEARNERS = "leo_lightning.learners"
_TEST_STEPS = {"test_steps": None}
_SECOND_ORDER = {"test_steps": None, "first_order": False}
REMOVED: Mapping[str, Mapping[str, Any]] = {
    f"{LEARNERS}.leo.LEO": {"kl": "sample", "orthogonality": "squared", "one_latent_per_class": False},
    f"{LEARNERS}.maml.MAML": _TEST_STEPS,
    f"{LEARNERS}.anil.ANIL": _TEST_STEPS,
    f"{LEARNERS}.reptile.Reptile": _TEST_STEPS,
    f"{LEARNERS}.learn2learn_methods.Learn2LearnMAML": _TEST_STEPS,
    f"{LEARNERS}.meta_sgd.MetaSGD": _SECOND_ORDER,
    f"{LEARNERS}.learn2learn_methods.Learn2LearnMetaSGD": _SECOND_ORDER,
    f"{LEARNERS}.meta_lstm.MetaLSTM": {"test_steps": None, "first_order": True, "lstm_size": 20},
    f"{LEARNERS}.matching.MatchingNetworks": {"processing_steps": 5},
}
"""Arguments that are gone, by class, with the value that this release has built in."""


def modernized(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `class_path` and `init_args` of a stored learner as this release names them.

    Arguments that are gone are dropped, and a LEO beside a centroid is a CentroidLEO.

    Raises:
        InputError: an argument that is gone has another value than the one that is built in.
    """
    path, arguments = learner["class_path"], dict(learner.get("init_args") or {})
    for name, built_in in REMOVED.get(path, {}).items():
        value = arguments.pop(name, built_in)
        if type(value) is not type(built_in) or value != built_in:
            raise InputError(
                f"{name} is {value!r:.50}, and this release has {built_in!r} alone; "
                "use the release that trained it, or train again"
            )
    scale = arguments.get("centroid_scale", 0.0)
    if path == f"{LEARNERS}.leo.LEO" and isinstance(scale, int | float):
        if scale > 0:
            path = f"{LEARNERS}.centroid_leo.CentroidLEO"
        else:
            arguments.pop("centroid_scale", None)
            arguments.pop("centroid_map", None)
    return {**learner, "class_path": path, "init_args": arguments}
