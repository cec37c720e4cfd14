"""AUROC of unknown classes against scikit-learn and SciPy, and the known classes that it must not touch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leo_lightning import learners
from leo_lightning.common.errors import InputError
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.learners.catalogue import methods
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.knn import NearestNeighbors
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.unknown_classes import SCORES, auroc, unknown_aurocs
from tests.training.models import trainer


def sklearns(unknown: np.ndarray, known: np.ndarray) -> float:
    """AUROC of one task."""
    return roc_auc_score([1] * unknown.size + [0] * known.size, np.concatenate([unknown, known], axis=None))


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_auroc_is_sklearns(levels: int):
    """Catches ties that count fully or not at all, sides swapped, and one task's scores sorted for all."""
    generator = torch.Generator().manual_seed(levels)
    unknown, known = (torch.randint(levels, (20, n), generator=generator).double() for n in (13, 9))
    known += torch.arange(20)[:, None] % 3
    expected = [sklearns(*pair) for pair in zip(unknown.numpy(), known.numpy(), strict=True)]
    np.testing.assert_allclose(auroc(unknown, known).numpy(), expected, rtol=0, atol=1e-15)


def test_auroc_of_scores_that_are_nan():
    """Catches an area out of NaN, which sorts behind all numbers and would look like a perfect score."""
    unknown, known = torch.tensor([[1.0, torch.nan], [1, 2], [1, 2]]), torch.tensor([[0.0], [torch.nan], [0]])
    assert auroc(unknown, known).isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("learner", [NearestCentroid(), NearestNeighbors(3)])
def test_scores_are_scipys(learner: Learner):
    """Catches the entropy of other queries, a distance to centroids, and a sign."""
    generator = torch.Generator().manual_seed(1)
    support, query, unknown = (
        torch.randn(4, n, images, 6, generator=generator).double() for n, images in ((3, 5), (3, 4), (2, 4))
    )
    found = unknown_aurocs(learner.adapt(support), Episode(support, query, unknown=unknown))
    assert tuple(found) == SCORES
    for b in range(4):
        scores = []
        for images in (unknown, query):
            flat = images[b].flatten(0, 1)
            chance = learner.adapt(support[b : b + 1])(flat[None])[0].double().softmax(-1).numpy()
            distance = cdist(flat.numpy(), support[b].flatten(0, 1).numpy()).min(1)
            scores.append([distance, entropy(chance, axis=1), 1 - chance.max(1)])
        for name, ours, theirs in zip(SCORES, *scores, strict=True):
            assert found[name][b].item() == pytest.approx(sklearns(ours, theirs), abs=1e-12), name


def test_nearly_certain_answers_are_told_apart():
    """Catches probabilities in float32, in which the largest is 1 for all queries: half of all hits."""

    class Certain:
        def __call__(self, query: Tensor) -> Tensor:
            return torch.cat([query, torch.zeros_like(query)], dim=-1)

        def select(self, tasks: Tensor) -> "Certain":
            return self

    known, unknown = torch.tensor([30.0, 31, 32]), torch.tensor([20.0, 21, 22])
    episode = Episode(torch.zeros(1, 2, 1, 1), known.view(1, 1, 3, 1), unknown=unknown.view(1, 1, 3, 1))
    found = unknown_aurocs(Certain(), episode)
    assert found["probability"].item() == found["entropy"].item() == 1


NAMES = [method.name for method in methods() if method.predicts == "classes" and not method.transductive]
LEARNERS = [*(getattr(learners, name)() for name in NAMES), LEO(test_samples=3)]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
def test_unknown_classes_change_nothing_else(learner: Learner, tmp_path: Path):
    """Catches other known classes, supports or queries than those of the same test without unknown ones."""
    model, scores = MetaLearner(learner), {}
    for unknown in (0, 4):
        data = EpisodeDataModule(
            "synthetic", normalize="l2", test_tasks=9, unknown=unknown, eval_batch_size=4
        )
        logged = trainer(tmp_path).test(model, data, verbose=False)[0]
        scores[unknown] = model.test_scores
        assert ("test/auroc_distance" in logged) == ("test/auroc_entropy_ci95" in logged) == bool(unknown)
    assert list(scores[0]) == list(scores[4])
    for one, other in zip(scores[0].values(), scores[4].values(), strict=True):
        assert torch.equal(one.values, other.values)
        assert one.extra == other.extra
    assert scores[0]["final"].auroc == {}
    assert [len(found.values) for found in scores[4]["final"].auroc.values()] == [9, 9, 9]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"unknown": 4}, "--data.unknown 0"), ({"test_query": "all"}, "--data.test_query 15")],
)
def test_a_transductive_method_has_no_unknown_classes(settings: dict, advice: str, tmp_path: Path):
    """Catches answers to known queries that change with the unknown ones, or unknown ones in another set."""
    data = EpisodeDataModule("synthetic", test_tasks=9, **settings)
    with pytest.raises(InputError, match=rf"TIM is transductive, .* set {advice}$"):
        trainer(tmp_path).test(MetaLearner(learners.TIM()), data, verbose=False)


def test_far_away_classes_are_unknown(tmp_path: Path):
    """Catches known and unknown queries in each other's place: unknown classes lie far from all others."""
    rows = EpisodeDataModule("synthetic", way=2, unknown=2, test_tasks=3, query=3)
    rows.setup("test")
    episode = rows.episode(range(3), "test", torch.device("cpu"))
    assert episode.unknown is not None
    far = episode._replace(unknown=100 + episode.unknown)
    found = unknown_aurocs(NearestCentroid().adapt(far.support), far)
    assert found["distance"].tolist() == [1, 1, 1]
