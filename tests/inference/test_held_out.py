"""Examples that are held out, and the threshold that is set by them."""

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.inference.held_out import FOLDS, HeldOut, folds, held_out, other_tasks
from leo_lightning.inference.rejection import threshold
from leo_lightning.inference.ways import UNTRAINED, ways


def bank(counts: list[int], seed: int = 0, E: int = 6) -> FeatureBank:
    generator = np.random.default_rng(seed)
    centres = 2 * generator.normal(size=(len(counts), E))
    rows = np.concatenate([c + generator.normal(size=(n, E)) for c, n in zip(centres, counts, strict=True)])
    return FeatureBank.from_arrays(rows.astype(np.float32), np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("counts", [[3, 3, 3], [1, 2, 5], [50, 4, 23], [1, 1, 2], [11, 10]])
def test_folds_hold_out_each_example_once(counts: list[int]):
    """Catches an example that is never or twice asked, a class left without one, and too many fits."""
    support = bank(counts)
    asked = folds(support)
    total = np.sum(asked, axis=0)
    assert total.tolist() == [0 if counts[label] == 1 else 1 for label in support.labels.tolist()]
    for fold in asked:
        left = np.bincount(support.labels.numpy()[~fold], minlength=len(counts))
        assert left.min() >= 1
    assert len(asked) <= min(FOLDS, max(counts))


def test_large_supports_are_fitted_less_often():
    """Catches minutes of fitting where three fits tell as much."""
    assert [len(folds(bank([count] * 20, E=2))) for count in (50, 100, 200, 1000)] == [10, 5, 3, 3]


def test_equal_classes_lose_equally_many():
    """Catches leave-one-out, which weakens the class of the held-out example only."""
    for fold in folds(bank([4, 4, 4])):
        assert fold.reshape(3, 4).sum(1).tolist() == [1, 1, 1]


def test_answers_are_those_of_a_classifier_of_the_rest():
    """Catches an example that the classifier has seen, and answers beside other labels."""
    support = bank([2, 3, 3])
    way = ways(None)["nearest-centroid"]
    answers = held_out(support, way.fit)
    x = torch.nn.functional.normalize(support.embeddings, dim=1).double().numpy()
    labels, expected = support.labels.numpy(), []
    for fold in folds(support):
        centroids = np.stack([x[~fold & (labels == label)].mean(0) for label in range(3)])
        for row in np.flatnonzero(fold):
            square = ((x[row] - centroids) ** 2).sum(1)
            nearest = np.linalg.norm(x[row] - x[~fold], axis=1).min()
            expected.append((labels[row], np.exp(-square) / np.exp(-square).sum(), nearest))
    label, probability, distance = zip(*expected, strict=True)
    assert answers.label.tolist() == list(label)
    np.testing.assert_allclose(answers.probability, np.stack(probability), atol=1e-5)
    np.testing.assert_allclose(answers.distance, distance, atol=1e-5)
    np.testing.assert_allclose(answers.right, np.stack(probability).argmax(1) == label)
    np.testing.assert_allclose(answers.entropy, [-(p * np.log(p)).sum() for p in probability], atol=1e-5)


def answered(*right: int) -> HeldOut:
    probability = torch.tensor([[1.0, 0.0] if hit else [0.0, 1.0] for hit in right], dtype=torch.float64)
    return HeldOut(torch.zeros(len(right), dtype=torch.int64), probability, torch.zeros(len(right)).double())


def test_a_later_method_must_be_better_by_more_than_chance():
    """Catches a choice by one example, and a difference of methods taken as if their examples differed."""
    good, better = answered(*[1] * 10, *[0] * 10), answered(*[1] * 11, *[0] * 9)
    assert not better.beats(good)
    assert answered(*[1] * 14, *[0] * 6).beats(good)
    assert not good.beats(answered(*[1] * 14, *[0] * 6))
    assert not good.beats(good)
    assert not answered(1).beats(answered(0))


def test_other_tasks_have_the_ways_and_shots_of_the_support():
    """Catches a calibration with easier tasks, or by the queries' own classifier."""
    seen: list[tuple[int, list[int]]] = []

    def fit(support: FeatureBank) -> AdaptedClassifier:
        seen.append((support.num_classes, support.counts.tolist()))
        return ways(None)["nearest-centroid"].fit(support)

    answers = other_tasks(bank([3, 9, 9, 9, 2]), fit, 4, 2)
    assert set(map(str, seen)) == {"(4, [2, 2, 2, 2])"}
    assert len(answers.label) == 4 * len(seen)
    assert answers.right.mean() > 0.5
    assert other_tasks(bank([3, 9, 9, 9, 2]), fit, 20, 2).probability.shape[1] == 4
    with pytest.raises(InputError, match="calibration needs two classes with 10 images"):
        other_tasks(bank([9, 9, 10]), fit, 2, 9)


def test_a_threshold_loses_the_share_that_it_was_given():
    """Catches a quantile of the examples themselves, which loses more of new queries."""
    generator = torch.Generator().manual_seed(0)
    lost = []
    for _ in range(2000):
        scores = torch.rand(39, generator=generator).double()
        lost.append(1 - threshold(scores, 0.1, "s"))  # a new score is uniform, too
    assert np.mean(lost) == pytest.approx(0.1, abs=0.003)
    assert threshold(torch.arange(1.0, 20).double(), 0.05, "s") == 19
    assert threshold(torch.arange(1.0, 40).double(), 0.05, "s") == 38


def test_a_share_needs_examples():
    """Catches a threshold that is infinite, and so rejects nothing, without a word."""
    scores = torch.arange(18.0).double()
    with pytest.raises(InputError, match=r"--reject 5%: needs 19 examples.*s has 18; use --reject 5.3%"):
        threshold(scores, 0.05, "s")
    assert threshold(scores, 0.053, "s") == 17


@pytest.mark.parametrize("name", UNTRAINED)
def test_methods_without_training_learn_the_classes(name: str):
    """Catches a method that does not learn, is not normalised, or needs equal numbers of examples."""
    support, query = bank([5, 2, 9]), bank([40, 40, 40])
    classifier = ways(None)[name].fit(support)
    assert classifier.normalization.kind == ("center_l2" if name == "cl2n" else "l2")
    scaled = AdaptedClassifier(classifier.learner, classifier.normalization, support)
    (answer,) = scaled.answers(query.embeddings)
    assert (answer.probability.argmax(1) == query.labels).double().mean() > 0.8
    (other,) = scaled.answers(query.embeddings * (1 if name == "cl2n" else 7))
    torch.testing.assert_close(other.probability, answer.probability, atol=1e-5, rtol=0)


def test_cl2n_counts_classes_alike():
    """Catches a mean that a class of many examples pulls to itself."""
    support = bank([2, 30, 3])
    mean = ways(None)["cl2n"].fit(support).normalization.mean
    assert mean is not None
    parts = support.embeddings.split([2, 30, 3])
    torch.testing.assert_close(mean, torch.stack([part.mean(0) for part in parts]).mean(0))
