"""Small tasks, and the promises of every method that adapts a network."""

import contextlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.learner import Classifier, Learner

DOUBLE = torch.float64
SMALL = {"embedding_size": 6, "dropout": 0.0, "steps": 3}


def episode_of(B: int = 2, N: int = 3, K: int = 2, Q: int = 4, E: int = 6, seed: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(B, N, 1, E, generator=generator, dtype=DOUBLE)
    support = centres + torch.randn(B, N, K, E, generator=generator, dtype=DOUBLE)
    return Episode(support, centres + torch.randn(B, N, Q, E, generator=generator, dtype=DOUBLE))


def build(kind: type[Learner], **settings: object) -> Learner:
    """A small learner with random weights in float64."""
    torch.manual_seed(7)
    return kind(**(SMALL | settings)).to(DOUBLE)


def gradients(loss: Tensor, learner: Learner) -> dict[str, Tensor]:
    named = dict(learner.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


class Contract:
    """Promises of each of these methods; a test class names `kind`."""

    kind: type[Learner]
    settings: ClassVar[dict[str, object]] = {}

    def learner(self, **settings: object) -> Learner:
        return build(self.kind, **(self.settings | settings))

    def test_classes_are_treated_alike(self):
        """Catches a head whose rows begin differently: a permutation of classes must permute logits."""
        learner, episode = self.learner().eval(), episode_of(N=4)
        order = torch.tensor([2, 0, 3, 1])
        permuted = learner(Episode(episode.support[:, order], episode.query[:, order])).logits
        expected = learner(episode).logits[:, order][..., order]
        torch.testing.assert_close(permuted, expected, rtol=1e-10, atol=1e-12)

    def test_way_and_shot_may_differ_from_training(self):
        """Catches a parameter whose size is that of the training tasks."""
        learner = self.learner()
        learner(episode_of(N=5, K=1), range(2)).loss.backward()
        learner.eval()
        for N, K in ((20, 1), (2, 10)):
            episode = episode_of(N=N, K=K)
            logits = learner(episode).logits
            assert logits.shape == (2, N, 4, N)
            assert (logits.argmax(-1) == torch.arange(N)[:, None]).double().mean() > 1.5 / N

    def test_tasks_do_not_touch(self):
        """Catches statistics over the meta-batch, and noise that hangs on a task's place in it."""
        learner, episode = self.learner(dropout=0.3), episode_of(B=3)
        together = learner(episode, [11, 12, 13])
        losses = []
        for b in range(3):
            alone = learner(Episode(episode.support[b : b + 1], episode.query[b : b + 1]), [11 + b])
            torch.testing.assert_close(alone.logits[0], together.logits[b], rtol=1e-10, atol=1e-12)
            losses.append(alone.loss)
        torch.testing.assert_close(torch.stack(losses).mean(), together.loss)
        whole, parts = gradients(together.loss, learner), gradients(torch.stack(losses).mean(), learner)
        for name, gradient in whole.items():
            torch.testing.assert_close(gradient, parts[name], rtol=1e-9, atol=1e-12)

    def test_noise_comes_from_the_seeds_only(self):
        """Catches dropout outside draw_noise, in evaluation, or the same for every seed."""
        learner, episode = self.learner(dropout=0.3), episode_of()
        state = torch.get_rng_state()
        losses = [learner(episode, [seed, seed + 1]).loss for seed in (3, 3, 4)]
        assert losses[0] == losses[1] != losses[2]
        learner.eval()
        assert learner(episode, [3, 4]).loss == learner(episode, [4, 5]).loss
        assert torch.equal(torch.get_rng_state(), state)

    def test_dropout_reaches_support_and_queries(self):
        """Catches a mask that is drawn and not used, or used in the wrong place."""
        learner, episode = self.learner(dropout=0.5), episode_of()
        masks = learner.draw_noise(episode, [1, 2])
        for mask, images in ((masks.support, episode.support), (masks.query, episode.query)):
            assert mask.shape == images.shape
            assert set(mask.unique().tolist()) == {0.0, 2.0}
        by_hand = Episode(episode.support * masks.support, episode.query * masks.query)
        plain = self.learner(dropout=0.0)
        torch.testing.assert_close(learner.outcome(episode, masks).loss, plain(by_hand, [1, 2]).loss)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
    def test_every_gradient_mode_gives_the_same(self, dtype: torch.dtype, training: bool):
        """Catches an inner loop that needs autograd of its mode, and a float32 that turns float64."""
        learner, episode = self.learner(dropout=0.2).to(dtype).train(training), episode_of()
        episode = Episode(episode.support.to(dtype), episode.query.to(dtype))
        expected = learner(episode, [1, 2])
        assert expected.logits.dtype == expected.loss.dtype == dtype
        for mode in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
            with mode():
                inputs = Episode(episode.support.clone(), episode.query.clone())
                outcome = learner(inputs, [1, 2])
                stages = learner.stages(inputs.support)
                logits = stages["final"](inputs.query)
            torch.testing.assert_close(outcome.logits, expected.logits)
            torch.testing.assert_close(outcome.loss, expected.loss)
            if not training:
                torch.testing.assert_close(logits, expected.logits)
            assert outcome.loss.requires_grad == logits.requires_grad == (mode is contextlib.nullcontext)

    def test_every_parameter_gets_a_gradient(self):
        """Catches a parameter that DDP would wait for, or that no step of training can move."""
        learner = self.learner()
        learner(episode_of(), range(2)).loss.backward()
        for name, parameter in learner.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_terms_add_up(self):
        """Catches a term that is logged and not trained, or the other way round."""
        outcome = self.learner()(episode_of(), range(2))
        torch.testing.assert_close(torch.stack(list(outcome.terms.values())).sum(), outcome.loss)
        expected = torch.nn.functional.cross_entropy(
            outcome.logits.flatten(0, 2), torch.arange(3).repeat_interleave(4).repeat(2)
        )
        torch.testing.assert_close(outcome.loss, expected)

    def test_padding_is_not_scored(self):
        """Catches an outer loss over padded queries."""
        learner, episode = self.learner(), episode_of(N=2, K=1, Q=3, B=1)
        valid = torch.tensor([[[True, True, False], [True, True, False]]])
        index = torch.zeros(1, 2, 3, dtype=torch.int64)
        rows = EpisodeRows(torch.zeros(1, dtype=torch.int64), index[..., :1], index, valid)
        shorter = learner(Episode(episode.support, episode.query[:, :, :2]), [0])
        padded = learner(episode._replace(rows=rows), [0])
        torch.testing.assert_close(padded.loss, shorter.loss)
        expected = gradients(shorter.loss, learner)
        for name, gradient in gradients(padded.loss, learner).items():
            torch.testing.assert_close(gradient, expected[name])

    def test_classifiers_take_any_query_and_subset(self):
        """Catches queries of another task, one task of queries not put to all, and select of other tasks."""
        learner, episode = self.learner().eval(), episode_of(B=3)
        classifier = learner.adapt(episode.support)
        assert isinstance(classifier, Classifier)
        expected = learner(episode).logits
        torch.testing.assert_close(classifier(episode.query), expected)
        torch.testing.assert_close(classifier(episode.query.flatten(1, 2)), expected.flatten(1, 2))
        tasks = torch.tensor([2, 0, 2, 1])
        chosen = classifier.select(tasks)
        torch.testing.assert_close(chosen(episode.query[tasks]), expected[tasks])
        shared = classifier(episode.query[:1])
        torch.testing.assert_close(shared, classifier(episode.query[:1].expand(3, -1, -1, -1)))
        torch.testing.assert_close(chosen(episode.query[:1]), shared[tasks])
        one = learner.adapt(episode.support[:1]).select(torch.tensor([0, 0]))
        torch.testing.assert_close(one(episode.query[:1]), expected[:1].expand(2, -1, -1, -1))

    def test_autocast_leaves_the_inner_loop_alone(self):
        """Catches inner gradients in bfloat16."""
        learner, episode = self.learner().float(), episode_of()
        episode = Episode(episode.support.float(), episode.query.float())
        with torch.autocast("cpu", torch.bfloat16):
            outcome = learner(episode, [1, 2])
            stage = learner.eval().adapt(episode.support)
        assert torch.equal(outcome.logits, learner.train()(episode, [1, 2]).logits)
        assert torch.equal(stage(episode.query), learner.eval()(episode).logits)

    def test_init_args_rebuild_the_learner(self):
        """Catches a setting that is used but not kept."""
        learner = self.learner()
        again = self.kind(**learner.init_args()).to(DOUBLE)
        assert again.init_args() == learner.init_args()
        again.load_state_dict(learner.state_dict())
        assert torch.equal(again(episode_of(), [1, 2]).loss, learner(episode_of(), [1, 2]).loss)


def refuses(make: Callable[[], object], *words: str) -> None:
    """`make` ends in one line that names the setting."""
    with pytest.raises(InputError) as error:
        make()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


BAD_SETTINGS: Sequence[dict[str, object]] = (
    {"steps": 0},
    {"dropout": 1.0},
    {"dropout": -0.1},
)


def close(found: Tensor, expected: np.ndarray | float, what: str = "", tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=tolerance, atol=tolerance, err_msg=what)
