"""Classes with unequal numbers of images: every method, against plain code on lists of images."""

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leo_lightning import learners
from leo_lightning.common.errors import InputError
from leo_lightning.learners.anil import ANIL
from leo_lightning.learners.baseline_plus_plus import BaselinePlusPlus
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.dynamic_few_shot import DynamicFewShot
from leo_lightning.learners.feat import FEAT
from leo_lightning.learners.gaussian_process import GaussianProcess
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.imaml import IMAML
from leo_lightning.learners.knn import NearestNeighbors
from leo_lightning.learners.learn2learn_methods import Learn2LearnMAML, Learn2LearnMetaSGD
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.linear_softmax import LinearSoftmax
from leo_lightning.learners.linear_svm import LinearSVM
from leo_lightning.learners.logistic_regression import LogisticRegression
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.maml_regression import MAMLRegression
from leo_lightning.learners.matching import PROCESSING_STEPS, MatchingNetworks
from leo_lightning.learners.meta_lstm import MetaLSTM
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.metaoptnet import MetaOptNet
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.learners.parts.unequal_shots import packed
from leo_lightning.learners.predicted_parameters import PredictedParameters
from leo_lightning.learners.proto_maml import ProtoMAML
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.learners.r2d2 import R2D2
from leo_lightning.learners.relation import RelationNetworks
from leo_lightning.learners.reptile import Reptile
from leo_lightning.learners.siamese import SiameseNetworks
from leo_lightning.learners.snail import SNAIL
from tests.learners.leos import CENTROIDS, VARIANTS, small_leo, variant
from tests.learners.tasks import moved
from tests.oracles import leo_ragged, meta_lstm_numpy, metric_numpy, mlp_numpy

DOUBLE = torch.float64
SHOTS = [[1, 4, 2], [3, 3, 1], [1, 1, 2]]
"""Images of each class of three tasks, whose largest class differs."""
Task = list[Tensor]
"""The images (k, E) of each class."""


def ragged_tasks(seed: int = 0, Q: int = 3, E: int = 6) -> tuple[list[Task], Tensor]:
    """Overlapping classes of images of length 1, and queries (B, N, Q, E)."""
    generator = torch.Generator().manual_seed(seed)
    randn = partial(torch.randn, generator=generator, dtype=DOUBLE)
    tasks, queries = [], []
    for shots in SHOTS:
        centres = randn(3, E)
        tasks.append(
            [F.normalize(c + 0.7 * randn(k, E), dim=-1) for c, k in zip(centres, shots, strict=True)]
        )
        queries.append(F.normalize(centres[:, None] + 0.7 * randn(3, Q, E), dim=-1))
    return tasks, torch.stack(queries)


def padded(tasks: Sequence[Task], K: int = 4, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and padding; a seed scatters the images over the row, between numbers of any kind."""
    B, N, E = len(tasks), len(tasks[0]), tasks[0][0].shape[1]
    support, valid = tasks[0][0].new_zeros(B, N, K, E), torch.zeros(B, N, K, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed or 0)
    if seed is not None:
        support += 1e3 * torch.randn(support.shape, generator=generator, dtype=DOUBLE)
    for b, task in enumerate(tasks):
        for n, images in enumerate(task):
            places = torch.arange(K) if seed is None else torch.randperm(K, generator=generator)
            places = places[: len(images)].sort().values
            support[b, n, places], valid[b, n, places] = images, True
    return support, valid


def method_of(kind: Callable[..., Learner], *arguments: object, **settings: object) -> Learner:
    torch.manual_seed(5)
    return moved(kind(*arguments, **settings)).eval()


def samples_of(**settings: object) -> LEO:
    """A LEO whose samples differ much."""
    leo = small_leo(**({"test_samples": 3} | settings)).eval()
    if leo.relation_net is not None:
        with torch.no_grad():
            leo.relation_net.layers[2].weight.mul_(3)
            leo.decoder.weight.mul_(2)
    return leo


LEOS: dict[str, Callable[[], LEO]] = {name: partial(variant, name) for name in VARIANTS | CENTROIDS}
LEOS |= {
    "no latent steps": partial(small_leo, latent_steps=0),
    "no fine-tuning": partial(small_leo, finetuning_steps=0),
}
SAMPLED: dict[str, Callable[[], LEO]] = {
    "samples": samples_of,
    "samples, random prior": partial(samples_of, random_prior=True),
    "samples, centroid": partial(samples_of, centroid_scale=2.0),
    "samples, generator only": partial(samples_of, latent_steps=0, finetuning_steps=0),
}
NETWORK = {"embedding_size": 6, "hidden_size": 5, "steps": 2}
OTHERS: dict[str, Callable[[], Learner]] = {
    "centroid": partial(method_of, NearestCentroid),
    "one neighbour": partial(method_of, NearestNeighbors),
    "neighbours": partial(method_of, NearestNeighbors, 5),
    "logistic regression": partial(method_of, LogisticRegression, 10.0),
    "support vectors": partial(method_of, LinearSVM, 2.0),
    "cosine classifier": partial(method_of, BaselinePlusPlus, steps=10),
    "euclidean": partial(method_of, PrototypicalNetworks, 6, hidden=4),
    "cosine": partial(method_of, PrototypicalNetworks, 6, distance="cosine"),
    "matching": partial(method_of, MatchingNetworks, 6, hidden=4),
    "full context": partial(method_of, MatchingNetworks, 6, hidden=4, full_context=True),
    "relation": partial(method_of, RelationNetworks, 6, hidden=4, relation_size=8),
    "FEAT": partial(method_of, FEAT, 6, hidden=4),
    "dynamic few-shot": partial(method_of, DynamicFewShot, 6, hidden=4, bases=5),
    "predicted parameters": partial(method_of, PredictedParameters, 6, hidden=4),
    "siamese": partial(method_of, SiameseNetworks, 6, hidden=4),
    "siamese, the nearest": partial(method_of, SiameseNetworks, 6, pooling="max"),
    "ridge regression": partial(method_of, R2D2, 6, hidden=4),
    "learned support vectors": partial(method_of, MetaOptNet, 6, hidden=4, C=0.5),
    "MAML": partial(method_of, MAML, **NETWORK),
    "ProtoMAML": partial(method_of, ProtoMAML, **NETWORK),
    "iMAML": partial(method_of, IMAML, **NETWORK),
    "ANIL": partial(method_of, ANIL, **NETWORK),
    "Meta-SGD": partial(method_of, MetaSGD, **NETWORK),
    "Reptile": partial(method_of, Reptile, **NETWORK),
    "Meta-LSTM": partial(method_of, MetaLSTM, **NETWORK),
    "learn2learn's MAML": partial(method_of, Learn2LearnMAML, **NETWORK),
    "learn2learn's Meta-SGD": partial(method_of, Learn2LearnMetaSGD, **NETWORK),
}
METHODS = LEOS | SAMPLED | OTHERS
REFUSED: dict[str, Callable[[], Learner]] = {
    "GeneralLEO": lambda: GeneralLEO(6, base=LinearSoftmax()),
    "MAMLRegression": lambda: MAMLRegression(6),
    "GaussianProcess": GaussianProcess,
    "SNAIL": lambda: SNAIL(6, way=3, filters=4),
}
each_method = pytest.mark.parametrize("method", METHODS)


def close(found: Tensor, expected: Tensor | np.ndarray, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=tolerance, atol=tolerance)


def answers(learner: Learner, tasks: Sequence[Task], query: Tensor, **places: int) -> Tensor:
    """Log-probabilities (B, N, Q, N): logits are compared up to what is equal for all classes."""
    classifier = learner.adapt(*padded(tasks, **places))
    return classifier(query).log_softmax(-1)


def plain_answers(leo: LEO, tasks: Sequence[Task], query: Tensor) -> dict[str, Tensor]:
    """The oracle's log-probabilities by stage; of samples the logarithm of their mean."""
    weights, steps = dict(leo.named_parameters()), (leo.latent_steps, leo.finetuning_steps)
    found = []
    for task, asked in zip(tasks, query, strict=True):
        counts = list(map(len, task))
        noises: list[tuple] = [(None, None)]
        if leo.test_samples:
            support, _ = padded([task], max(map(len, task)))
            noises = [
                (
                    [x[:c] for x, c in zip(noise.latents[0], counts, strict=True)],
                    [[x[:c] for x, c in zip(w, counts, strict=True)] for w in noise.weights[:, 0]],
                )
                for noise in leo.samples(support)
            ]
        stages = []
        for eps_z, eps_w in noises:
            by_stage = leo_ragged.stages(weights, task, steps, eps_z, eps_w)
            logits = [
                torch.stack([leo_ragged.logits_of(weights, task, w, x) for x in asked.flatten(0, 1)])
                for w in by_stage
            ]
            stages.append(torch.stack(logits).softmax(-1))
        found.append(torch.stack(stages).mean(0).log().unflatten(1, asked.shape[:2]))
    names = ("before_adaptation", "after_latent_steps", "final")
    return dict(zip(names, torch.stack(found, 1), strict=True))


@pytest.mark.parametrize("name", LEOS | SAMPLED)
def test_leo_is_the_plain_one(name: str):
    """Catches padding in a mean, a sum or a gradient, another rate, and copies that a class lacks."""
    leo, (tasks, query) = (LEOS | SAMPLED)[name]().eval(), ragged_tasks()
    expected = plain_answers(leo, tasks, query)
    found = leo.stages(*packed(*padded(tasks, seed=1)))
    assert list(found) == list(expected)
    for stage, classifier in found.items():
        assert isinstance(classifier, SampledClassifier) == bool(leo.test_samples)
        close(classifier(query).log_softmax(-1), expected[stage])
    final = found["final"](query).log_softmax(-1)
    assert torch.equal(answers(leo, tasks, query, seed=1), final)
    if leo.latent_steps + leo.finetuning_steps:
        assert (expected["final"] - expected["before_adaptation"]).abs().max() > 0.05


@pytest.mark.parametrize("name", [*LEOS, *SAMPLED])
def test_gradients_of_leo_are_the_plain_ones(name: str):
    """Catches a derivative that padding makes NaN, or that stays on one path of padded images or copies."""
    leo, (tasks, query) = (LEOS | SAMPLED)[name]().eval(), ragged_tasks()
    direction = torch.randn((*query.shape[:3], 3), generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    leaves = [images.requires_grad_() for task in tasks for images in task] + list(leo.parameters())
    grad = partial(torch.autograd.grad, inputs=leaves, allow_unused=True)
    theirs = grad((direction * plain_answers(leo, tasks, query)["final"]).sum())
    mine = grad((direction * answers(leo, tasks, query, seed=1)).sum())
    for found, expected in zip(mine, theirs, strict=True):
        assert found is not None or expected is None
        if found is not None:
            close(found, torch.zeros_like(found) if expected is None else expected, 1e-7)


@each_method
def test_padding_has_no_influence(method: str):
    """Catches what stands in the place of an image, where it stands, and how much of it there is."""
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    expected = answers(learner, tasks, query)
    for places in ({"K": 4, "seed": 1}, {"K": 9, "seed": 2}, {"K": 9}):
        assert torch.equal(answers(learner, tasks, query, **places), expected)
    support, valid = padded(tasks)
    nothing = torch.full_like(support, torch.nan)
    holes = learner.adapt(torch.where(valid[..., None], support, nothing), valid)(query).log_softmax(-1)
    assert torch.equal(holes, expected)


@each_method
def test_tasks_do_not_influence_each_other(method: str):
    """Catches a batch whose largest class decides for a task: in its noise, rates, votes or means."""
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    together = answers(learner, tasks, query)
    for b in range(len(tasks)):
        alone = answers(learner, tasks[b : b + 1], query[b : b + 1])
        close(alone[0], together[b], 1e-6 if method in ("logistic regression", "support vectors") else 1e-9)
    # a task of equal shots beside one of unequal: the noise is that of the task alone
    equal = [images[:1] for images in tasks[0]]
    close(
        answers(learner, [equal, tasks[1]], query[:2])[0], answers(learner, [equal], query[:1], K=1)[0], 1e-5
    )


@each_method
def test_order_of_a_class_does_not_matter(method: str):
    """Catches a code, a mean or noise that hangs on an image's place in its class."""
    if method == "full context":
        pytest.skip("reads the support in its order")
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    turned = [[images.flip(0) for images in task] for task in tasks]
    solved = method in ("logistic regression", "support vectors")
    close(answers(learner, turned, query), answers(learner, tasks, query), 1e-4 if solved else 1e-9)


@each_method
def test_permuting_classes_permutes_logits(method: str):
    """Catches the number of images of another class."""
    if method == "full context" or method in SAMPLED:
        pytest.skip("reads the support in its order, or draws noise by the class's place")
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    order = [2, 0, 1]
    found = answers(learner, [[task[n] for n in order] for task in tasks], query[:, order])
    solved = method in ("logistic regression", "support vectors")
    close(found, answers(learner, tasks, query)[:, order][..., order], 1e-4 if solved else 1e-9)


@each_method
def test_equal_shots_are_as_always(method: str):
    """Catches another, slower way to the numbers where there is no padding, or as much in every class."""
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    equal = [[images[:1].expand(2, -1) + torch.eye(2, 6) for images in task] for task in tasks]
    support, valid = padded(equal, K=2)
    assert packed(support, valid)[0] is support
    expected = learner.adapt(support)(query)
    assert torch.equal(learner.adapt(support, valid)(query), expected)
    assert torch.equal(learner.adapt(*padded(equal, K=5, seed=3))(query), expected)


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_it_works_without_autograd_in_both_precisions(method: str, dtype: torch.dtype):
    """Catches a count that makes numbers float32, an inner loop that needs autograd, and lost digits."""
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    exact = answers(learner, tasks, query)
    learner.to(dtype)
    support, valid = padded(tasks)
    expected = learner.adapt(support.to(dtype), valid)(query.to(dtype))
    assert expected.dtype == dtype
    if not (dtype == torch.float32 and method in SAMPLED):  # whose noise is drawn in its precision
        close(expected.double().log_softmax(-1), exact, 2e-4 if dtype == torch.float32 else 1e-12)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = learner.adapt(support.to(dtype), valid)(query.to(dtype))
            # torch has an LSTM for each mode, which agree but for rounding
            close(found, expected, 1e-5 if "context" in method else 0)


@each_method
def test_classifiers_select_and_share_queries(method: str):
    """Catches a mask that stays with all tasks, and queries that are put to one task only."""
    learner, (tasks, query) = METHODS[method]().eval(), ragged_tasks()
    classifier, images = learner.adapt(*padded(tasks)), query[:1]
    close(classifier(images), classifier(images.expand(3, -1, -1, -1)))
    chosen = torch.tensor([2, 0, 0])
    close(classifier.select(chosen)(images), classifier(images)[chosen])


@pytest.mark.parametrize("name", ["as published", "centroid"])
def test_autocast_stays_close(name: str):
    """Catches what padding makes of low precision."""
    leo, (tasks, query) = LEOS[name]().float().eval(), ragged_tasks()
    support, valid = padded(tasks, seed=1)
    expected = leo.adapt(support.float(), valid)(query.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = leo.adapt(support.float(), valid)
    torch.testing.assert_close(found(query.float()), expected, rtol=0.05, atol=0.05)


def test_a_class_of_few_images_is_less_certain():
    """Catches as many copies for all classes: the mean over copies is what makes samples of w agree."""
    leo = samples_of(random_prior=True, latent_steps=0, finetuning_steps=0, test_samples=300)
    tasks, _ = ragged_tasks()
    with torch.no_grad():
        leo.decoder.weight[6:] *= 0.1
        deviation = leo.adapt(*padded(tasks)).weight.std(1).mean(-1)
    for found, shots in zip(deviation, SHOTS, strict=True):
        expected = found[shots.index(1)] / torch.tensor(shots).double().sqrt()
        torch.testing.assert_close(found, expected, rtol=0.15, atol=0)


def numpy_of(learner: Learner) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in learner.state_dict().items()}


def metric(learner: Learner, task: Task, image: np.ndarray) -> np.ndarray:
    weights, images = numpy_of(learner), [x.numpy() for x in task]
    if isinstance(learner, PrototypicalNetworks):
        return metric_numpy.prototypical(weights, images, image, learner.distance)
    if isinstance(learner, MatchingNetworks):
        steps = PROCESSING_STEPS if learner.full_context else None
        return metric_numpy.matching(weights, images, image, steps)
    if isinstance(learner, DynamicFewShot):
        return metric_numpy.dynamic_few_shot(weights, images, image)
    if isinstance(learner, PredictedParameters):
        return metric_numpy.predicted_parameters(weights, [x.mean(0) for x in images], image)
    if isinstance(learner, SiameseNetworks):
        return metric_numpy.softmax(metric_numpy.siamese(weights, images, image, learner.pooling))
    scores = metric_numpy.relation(weights, images, image)
    return scores / (1 - scores) / (scores / (1 - scores)).sum()


def network(learner: Learner, task: Task, image: np.ndarray) -> np.ndarray:
    weights, images = numpy_of(learner), [x.numpy() for x in task]
    W, b = weights["hidden.weight"], weights["hidden.bias"]
    if isinstance(learner, MetaLSTM):
        head = meta_lstm_numpy.adapt(weights, images, 2)
        return mlp_numpy.softmax(head @ np.append(np.maximum(W @ image + b, 0), 1.0))
    if isinstance(learner, MetaSGD):
        names = ("hidden_weight_rate", "hidden_bias_rate", "head_weight_rate", "head_bias_rate")
        rates = {letter: weights[name] for letter, name in zip("WbVc", names, strict=True)}
    else:
        body = 0.0 if isinstance(learner, ANIL) else learner.inner_lr
        rates = {"W": body, "b": body, "V": learner.inner_lr, "c": learner.inner_lr}
    begins_near = isinstance(learner, ProtoMAML)
    start = mlp_numpy.prototypes_of(W, b, images) if begins_near else mlp_numpy.start_of(W, b, 3)
    adapted = mlp_numpy.adapt(start, images, rates, 2)
    return mlp_numpy.softmax(mlp_numpy.logits_of(adapted, image))


def centroid(learner: Learner, task: Task, image: np.ndarray) -> np.ndarray:
    return mlp_numpy.softmax(np.array([-((image - x.numpy().mean(0)) ** 2).sum() for x in task]))


def votes(learner: Learner, task: Task, image: np.ndarray) -> np.ndarray:
    near = sorted(
        ((float(x @ image), n) for n, images in enumerate(task) for x in images.numpy()), reverse=True
    )
    k = min(learner.k, len(near))
    logits = np.zeros(len(task))
    for cosine, n in near[:k]:
        logits[n] += 1 + (1 + cosine) / (2 * (k + 1))
    return mlp_numpy.softmax(logits)


PLAIN = {
    "centroid": centroid,
    "one neighbour": votes,
    "neighbours": votes,
    **dict.fromkeys(["euclidean", "cosine", "matching", "full context", "relation"], metric),
    **dict.fromkeys(["dynamic few-shot", "predicted parameters", "siamese", "siamese, the nearest"], metric),
    **dict.fromkeys(["MAML", "ProtoMAML", "ANIL", "Meta-SGD", "Reptile", "Meta-LSTM"], network),
    **dict.fromkeys(["learn2learn's MAML", "learn2learn's Meta-SGD"], network),
}


@pytest.mark.parametrize("method", PLAIN)
def test_other_methods_are_the_plain_ones(method: str):
    """Catches padding in a mean, in the votes, in the attention or in an inner gradient."""
    learner, (tasks, query) = OTHERS[method](), ragged_tasks()
    found = answers(learner, tasks, query, seed=1).exp()
    for task, images, probabilities in zip(tasks, query.flatten(1, 2), found.flatten(1, 2), strict=True):
        for image, mine in zip(images.numpy(), probabilities, strict=True):
            close(mine, PLAIN[method](learner, task, image))


@pytest.mark.parametrize("method", ["logistic regression", "support vectors"])
@pytest.mark.parametrize("E", [3, 6, 20])
def test_fits_are_at_the_minimum_of_the_images_alone(method: str, E: int):
    """Catches padding in the objective, images of another class, and a basis that lacks an image.

    And a class that counts for more since it has more images: at 1 against 10 that cost 40 points.
    """
    learner, (tasks, _) = OTHERS[method](), ragged_tasks(E=E)
    weight, bias = (part.requires_grad_() for part in learner.adapt(*padded(tasks, seed=1)))
    objective = (weight.square().sum() + (bias.square().sum() if method == "support vectors" else 0.0)) / 2
    for w, b, task in zip(weight, bias, tasks, strict=True):
        for n, images in enumerate(task):
            logits, of_class = images @ w.T + b, sum(map(len, task)) / (len(task) * len(images))
            if method == "support vectors":  # the images of other classes weigh 1
                own = F.one_hot(torch.tensor(n), 3)
                losses = (1 - (2 * own - 1) * logits).clamp_min(0).square() * (own * of_class + 1 - own)
                objective = objective + learner.C * losses.sum()
            else:
                objective = objective - learner.C * of_class * logits.log_softmax(-1)[:, n].sum()
    for gradient in torch.autograd.grad(objective, (weight, bias)):
        assert gradient.abs().max() < 1e-3
    assert weight.abs().max() > 0.1


def test_support_vectors_draw_no_random_numbers():
    """Catches dimensions of padding, more than there are images, for which the solver has random steps."""
    tasks, _ = ragged_tasks(E=20)
    first, again = (LinearSVM(100.0).adapt(*padded(tasks, K=9, seed=1)) for _ in range(2))
    assert torch.equal(first.weight, again.weight)


def test_every_method_supports_or_refuses():
    """Catches a method that nobody thought of. Transductive ones: test_transductive.py and test_tpn.py."""
    for module in pkgutil.iter_modules(learners.__path__):
        importlib.import_module(f"leo_lightning.learners.{module.name}")
    left, kinds = [Learner], set()
    while left:
        left += left.pop().__subclasses__()
        kinds |= {kind for kind in left if kind.__module__.startswith("leo_lightning")}
    concrete = {kind for kind in kinds if not (inspect.isabstract(kind) or ".parts." in kind.__module__)}
    assert {kind for kind in concrete if not kind.unequal_shots} == {
        type(make()) for make in REFUSED.values()
    }
    inductive = {kind for kind in concrete if kind.unequal_shots and not kind.transductive}
    assert inductive == {type(make()) for make in METHODS.values()}


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_refuse_in_one_line(method: str):
    """Catches padding that is taken for images, and a refusal that says not what to do."""
    learner, (tasks, _) = REFUSED[method]().double().eval(), ragged_tasks()
    said = (
        f"^{method} cannot adapt to classes with unequal numbers of examples; "
        "give every class the same number, or use LEO$"
    )
    if learner.predicts == "values":
        tasks = [task[:1] for task in tasks]
    with pytest.raises(InputError, match=said):
        learner.adapt(*padded(tasks))
    equal = [[images[:1] for images in task] for task in tasks]
    support, valid = padded(equal, K=3)
    with contextlib.suppress(ImportError):
        learner.adapt(support, valid)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (1, "class 1 has no example: give every class at least one"),
        (2, "class 2 of task 1 has no example: give every class at least one"),
    ],
)
@pytest.mark.parametrize("method", ["as published", "MAML", "GeneralLEO"])
def test_a_class_without_an_image_is_refused(method: str, tasks: int, said: str):
    """Catches a mean over nothing, and a line that does not say which class."""
    valid = torch.ones(tasks, 3, 2, dtype=torch.bool)
    valid[0, 0, 0] = False
    valid[-1, tasks] = False
    learner = (METHODS | REFUSED)[method]().double().eval()
    with pytest.raises(InputError, match=f"^{said}$"):
        learner.adapt(torch.ones(tasks, 3, 2, 6, dtype=DOUBLE), valid)
