"""LEOClassifier: new classes by scikit-learn's habits."""

import importlib
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy import ndarray
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from torch.nn.functional import normalize

from leo_lightning import LEOClassifier
from leo_lightning.common.errors import InputError
from leo_lightning.inference import adapted_classifier as adapted
from leo_lightning.inference import trained_model
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.centroid_leo import CentroidLEO
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.training.checkpoint import LIGHTNING
from leo_lightning.training.meta_learner import MetaLearner
from tests.places import ROOT

METHODS = sorted((ROOT / "configs" / "methods").glob("*.yaml"))
E = 8


def save(path: Path, learner: Learner, normalize: str = "l2", mean: torch.Tensor | None = None) -> Path:
    """Write a checkpoint of a learner that nobody trained, as its training would have left it."""
    model = MetaLearner(learner)
    content = {
        "hyper_parameters": dict(model.hparams),
        "state_dict": model.state_dict(),
        "global_step": 3,
        LIGHTNING: "2.6.0",
        "EpisodeDataModule": {"normalize": normalize, "mean": mean, "provenance": {"backbone": "tiny"}},
    }
    torch.save(content, path)
    return path


def leo(size: int = E, kind: type[LEO] = CentroidLEO, **changes: Any) -> LEO:
    """A LEO with random weights whose inner steps change answers; beside a centroid, so that it is good."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scale = {"centroid_scale": 4.0} if kind is CentroidLEO else {}
        return kind(size, **({"num_latents": 4, "finetuning_lr": 0.1} | scale | changes)).eval()


def blobs(shots: int, seed: int = 0, classes: int = 3, size: int = E) -> tuple[ndarray, ndarray]:
    """Overlapping classes, in disorder, with names that are not in order of their numbers."""
    centres = np.random.default_rng(9).normal(size=(classes, size))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), shots))
    x = centres[labels] + rng.normal(size=(len(labels), size))
    return x.astype(np.float32), np.array(["wolf", "ant", "cow", "bee", "yak"])[labels]


def sorted_by_class(x: ndarray, y: ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([x[y == name] for name in np.unique(y)]))[None]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "x.ckpt", leo())


# scikit-learn's own checks


EXPECTED = {
    "check_do_not_raise_errors_in_init_or_set_params": "gives arguments of strange types, which these "
    "tests refuse, as they enforce all annotations; the package alone does not",
}
"""Checks that fail whatever is in the checkpoint."""


def failed(path: Path) -> Counter[str]:
    """Names of scikit-learn's checks that fail, but for those expected; there are several of some names."""
    found = check_estimator(
        LEOClassifier(str(path)), expected_failed_checks=EXPECTED, on_fail=None, on_skip=None
    )
    assert len(found) > 40
    assert {each["check_name"] for each in found if each["status"] == "xfail"} == set(EXPECTED)
    return Counter(each["check_name"] for each in found if each["status"] == "failed")


def test_scikit_learns_checks_pass(tmp_path: Path):
    """Catches any habit of scikit-learn's that is broken; a nearest centroid takes embeddings of any size."""
    assert not failed(save(tmp_path / "x.ckpt", NearestCentroid(), "none"))


def test_scikit_learns_checks_pass_with_a_size_of_their_own(tmp_path: Path):
    """Catches a habit that is broken for LEO.

    A checkpoint fixes the size of embeddings, a check chooses its own, and fails with all others. So there is
    a checkpoint for each size that checks choose, and each check must pass with one of them.
    """
    found = [failed(save(tmp_path / f"{size}.ckpt", leo(size), "none")) for size in (1, 2, 3, 4, 5, 10)]
    assert not set.intersection(*map(set, found))


def test_it_can_be_cloned_pickled_and_set(checkpoint: Path):
    """Catches parameters that __init__ changes, or that are forgotten."""
    path = str(checkpoint)
    made = LEOClassifier.from_checkpoint(path, samples=7)
    assert made.get_params() == {"checkpoint": path, "samples": 7}
    copy = clone(made).set_params(samples=3)
    assert (copy.checkpoint, copy.samples, made.samples) == (path, 3, 7)


def test_it_uses_one_thread(checkpoint: Path, threads: int, monkeypatch: pytest.MonkeyPatch):
    """Catches threads that wait for each other on a busy machine, and threads gone for good afterwards."""
    seen = []

    class Watched(AdaptedClassifier):
        def _rows(self, embeddings: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super()._rows(embeddings)

    monkeypatch.setattr(trained_model, "AdaptedClassifier", Watched)
    x, y = blobs(4)
    LEOClassifier(checkpoint).fit(x, y).predict(x)
    assert seen == [1, 1]
    assert torch.get_num_threads() == threads


def test_what_is_fitted_needs_its_checkpoint_no_more(checkpoint: Path):
    """Catches a pickle that holds a path in place of a classifier, or other drawn classifiers."""
    made = LEOClassifier(str(checkpoint)).fit(*blobs(4))
    query, _ = blobs(10, seed=1)
    before = made.predict_proba(query), made.disagreement(query), made.predict(query)
    held = pickle.dumps(made)
    checkpoint.unlink()
    again = pickle.loads(held)
    for found, expected in zip(
        (again.predict_proba(query), again.disagreement(query), again.predict(query)), before, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_it_works_in_pipelines_and_searches(checkpoint: Path):
    """Catches an estimator that others of scikit-learn cannot handle."""
    x, y = blobs(20)
    made = make_pipeline(FunctionTransformer(), LEOClassifier(str(checkpoint)))
    assert cross_val_score(made, x, y, cv=2).mean() > 0.6


# what it says


@pytest.mark.parametrize("kind", ["none", "l2", "center_l2"])
def test_it_is_the_learner_on_normalised_embeddings(kind: str, tmp_path: Path):
    """Catches embeddings that are not normalised as those of the training, and classes out of order."""
    mean = torch.linspace(-1, 1, E)
    path = save(tmp_path / "x.ckpt", leo(), kind, mean if kind == "center_l2" else None)
    (x, y), (query, _) = blobs(3), blobs(30, seed=1)
    made = LEOClassifier(path).fit(x, y)
    read_only = query.copy()
    read_only.flags.writeable = False

    def seen(rows: torch.Tensor) -> torch.Tensor:
        rows = rows - mean if kind == "center_l2" else rows
        return rows if kind == "none" else normalize(rows, dim=-1)

    logits = leo().adapt(seen(sorted_by_class(x, y)))(seen(torch.from_numpy(query))[None])[0]
    expected = logits.detach().double().softmax(-1).numpy()
    assert made.classes_.tolist() == ["ant", "cow", "wolf"]
    np.testing.assert_allclose(made.predict_proba(read_only), expected, atol=1e-6)
    np.testing.assert_array_equal(made.predict(query), made.classes_[expected.argmax(1)])
    np.testing.assert_allclose(made.entropy(query), -(expected * np.log(expected)).sum(1), atol=1e-5)
    assert made.n_features_in_ == E
    assert len(set(made.predict(query))) == 3


@pytest.mark.parametrize("labels", [[7, -3, 20], ["b", "a", "c"], [True, False], [0.0, 2.0, 1.0]])
def test_labels_are_what_they_were(labels: list, checkpoint: Path):
    """Catches labels that come back as numbers or text."""
    y = np.array(2 * labels)
    x = np.random.default_rng(0).normal(size=(len(y), E))
    made = LEOClassifier(checkpoint).fit(x, y)
    assert made.classes_.dtype == y.dtype
    assert made.predict(x).dtype == y.dtype
    assert made.score(x, y) == np.mean(made.predict(x) == y) == 1


def test_disagreement_is_that_of_the_same_drawn_classifiers(checkpoint: Path):
    """Catches classifiers that are drawn anew, of another distribution, or compared with their majority."""
    (x, y), (query, _) = blobs(2), blobs(40, seed=1)
    made = LEOClassifier(checkpoint, samples=5).fit(x, y)
    found = made.disagreement(query)
    np.testing.assert_array_equal(found, clone(made).fit(x, y).disagreement(query))
    drawn: Any = leo(test_samples=5).adapt(normalize(sorted_by_class(x, y), dim=-1))
    rows = normalize(torch.from_numpy(query), dim=-1)
    votes = (torch.einsum("snd,md->smn", drawn.weight[0], rows) + drawn.bias[0]).argmax(-1).numpy()
    answer = made.predict_proba(query).argmax(1)
    np.testing.assert_allclose(found, (votes != answer).mean(0))
    assert 0 < found.max() < 1


@pytest.mark.parametrize(
    "learner", [NearestCentroid(), leo(deterministic=True)], ids=["nearest centroid", "deterministic"]
)
def test_what_draws_nothing_cannot_disagree(learner: Learner, tmp_path: Path):
    """Catches zeros that look like certainty."""
    made = LEOClassifier(save(tmp_path / "x.ckpt", learner)).fit(*blobs(2))
    with pytest.raises(InputError, match="draws no classifiers that could disagree"):
        made.disagreement(blobs(2)[0])


def test_batches_change_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches rows that are lost or moved where one batch ends, and a batch of all."""
    query, _ = blobs(11, seed=1)
    made = LEOClassifier(checkpoint).fit(*blobs(2))
    whole = made.predict_proba(query), made.disagreement(query), made.entropy(query)
    monkeypatch.setattr("leo_lightning.data.new_classes.QUERIES", 4)
    sizes = []
    answer = adapted.AdaptedClassifier.answer
    monkeypatch.setattr(
        adapted.AdaptedClassifier,
        "answer",
        lambda self, rows, disagreement: sizes.append(len(rows)) or answer(self, rows, disagreement),
    )
    parts = made.predict_proba(query), made.disagreement(query), made.entropy(query)
    assert sizes == 3 * ([4] * 8 + [1])
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_double_precision_is_kept(tmp_path: Path):
    """Catches weights of `precision: 64-true` that lose half their digits."""
    (x, y), (query, _) = blobs(2), blobs(5, seed=1)
    learner = leo().double()
    made = LEOClassifier(save(tmp_path / "x.ckpt", learner, "none")).fit(x, y)
    support, rows = sorted_by_class(x, y).double(), torch.from_numpy(query).double()
    expected = learner.adapt(support)(rows[None])[0].softmax(-1).detach().numpy()
    np.testing.assert_allclose(made.predict_proba(query), expected, rtol=1e-12)


def test_fitting_changes_nothing_else(checkpoint: Path):
    """Catches a fit that moves torch's generator, or needs gradients."""
    before = torch.get_rng_state()
    made = LEOClassifier(checkpoint).fit(*blobs(2))
    made.disagreement(blobs(2)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert not made.adapted_.classifier.weight.requires_grad


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_serves(path: Path, tmp_path: Path):
    """Catches a method that cannot be taken out of its checkpoint, or whose classifier answers otherwise."""
    config = yaml.safe_load(path.read_text())["model"]["learner"]
    module, _, name = config["class_path"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    arguments = config.get("init_args", {}) | ({"embedding_size": E} if kind.trained else {})
    arguments |= {"way": 3, "shot": 5} if path.stem == "snail" else {}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        learner = kind(**arguments).eval()
    (x, y), (query, _) = blobs(5), blobs(20, seed=1)
    made = LEOClassifier(save(tmp_path / "x.ckpt", learner)).fit(x, y)
    with torch.no_grad():
        support, rows = (normalize(part, dim=-1) for part in (sorted_by_class(x, y), torch.from_numpy(query)))
        expected = learner.adapt(support)(rows[None])[0].double().softmax(-1).numpy()
    np.testing.assert_allclose(made.predict_proba(query), expected, atol=1e-6)
    assert expected.std(0).min() > 0.003
    pickle.dumps(made)


# unequal shots


def uneven() -> tuple[ndarray, ndarray]:
    """Five examples of a class, three and one of others."""
    x, y = blobs(5)
    kept = np.concatenate(
        [np.flatnonzero(y == name)[:shots] for name, shots in (("ant", 5), ("cow", 3), ("wolf", 1))]
    )
    return x[kept], y[kept]


def test_some_classes_may_have_more_examples(tmp_path: Path):
    """Catches padding that is taken for examples: centroids are those of each class's own."""
    x, y = uneven()
    query, _ = blobs(10, seed=1)
    made = LEOClassifier(save(tmp_path / "x.ckpt", NearestCentroid(), "none")).fit(x, y)
    centroids = np.stack([x[y == name].mean(0) for name in made.classes_])
    distances = ((query[:, None] - centroids) ** 2).sum(2).astype(np.float64)
    weights = np.exp(distances.min(1, keepdims=True) - distances)
    np.testing.assert_allclose(made.predict_proba(query), weights / weights.sum(1, keepdims=True), atol=1e-5)


def test_leo_learns_from_unequal_numbers_of_examples(checkpoint: Path):
    """Catches padding that LEO encodes or fine-tunes on: more of it changes nothing."""
    x, y = uneven()
    query, labels = blobs(20, seed=1)
    made = LEOClassifier(checkpoint).fit(x, y)
    assert made.score(query, labels) > 0.5
    support = torch.zeros(1, 3, 9, E)
    valid = torch.zeros(1, 3, 9, dtype=torch.bool)
    for number, name in enumerate(made.classes_):
        rows = normalize(torch.from_numpy(x[y == name]), dim=-1)
        support[0, number, : len(rows)], valid[0, number, : len(rows)] = rows, True
    logits = leo().adapt(support, valid)(normalize(torch.from_numpy(query), dim=-1)[None])[0]
    expected = logits.detach().double().softmax(-1).numpy()
    np.testing.assert_allclose(made.predict_proba(query), expected, atol=1e-5)
    assert made.disagreement(query).max() > 0


# what it refuses, and costs


def test_bad_input_is_said_in_one_line(checkpoint: Path, tmp_path: Path):
    """Catches a traceback out of torch where a line will do."""
    x, y = blobs(2)
    for made, inputs, said in (
        (LEOClassifier(), (x, y), "checkpoint is None"),
        (LEOClassifier(tmp_path / "no.ckpt"), (x, y), "no such checkpoint"),
        (LEOClassifier(checkpoint), (x[:, :5], y), "embeddings have size 5, and 8 in .*x.ckpt"),
        (LEOClassifier(checkpoint), (x[y == "ant"], y[y == "ant"]), r"one class only \('ant'\)"),
        (LEOClassifier(checkpoint, samples=-1), (x, y), "samples is -1: it must be at least 0"),
    ):
        with pytest.raises(InputError, match=said) as error:
            made.fit(*inputs)
        assert "\n" not in str(error.value)


def test_importing_the_package_stays_quick():
    """Catches torch and scikit-learn imported by whoever asks for the version."""
    program = (
        "import sys, leo_lightning as l; print(l.__version__, {'torch', 'sklearn'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "0.1.0 set()\n"
    with pytest.raises(ImportError):
        from leo_lightning import NoSuchName  # noqa: F401  # pyright: ignore
