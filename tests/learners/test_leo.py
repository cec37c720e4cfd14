"""LEO as a whole, against the NumPy oracle and against its own definition."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.inner_loop import adapt
from leo_lightning.learners.parts.noise import NO_NOISE, Noise
from tests.learners.leos import DOUBLE, close, episode_of, noise_of, rearranged, small_leo
from tests.oracles import leo_numpy as oracle
from tests.parity import Fixture, theirs, variables


def our_side(arrays: oracle.Arrays) -> tuple[LEO, Episode, Noise]:
    """The learner, episode and noise of an oracle's problem, in float64."""
    fixture = Fixture(arrays)
    return fixture.learner(DOUBLE), fixture.episode(DOUBLE), fixture.noise(DOUBLE)


def gradients(loss: Tensor, leo: LEO) -> dict[str, Tensor]:
    named = dict(leo.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


SIZES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "B": st.integers(1, 3),
        "N": st.integers(2, 4),
        "K": st.integers(1, 3),
        "Q": st.integers(1, 3),
        "E": st.integers(2, 5),
        "H": st.integers(1, 4),
        "T": st.integers(0, 3),
        "F": st.integers(0, 3),
        "training": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.3]),
    }
)


@given(SIZES)
@example({"seed": 1, "B": 2, "N": 3, "K": 3, "E": 5, "H": 3, "T": 3, "F": 3, "dropout": 0.3})
@example({"seed": 2, "B": 2, "N": 3, "K": 3, "E": 5, "H": 3, "T": 0, "F": 0, "dropout": 0.3})
def test_every_intermediate_value_is_the_oracles(sizes: dict):
    """Catches a wrong formula at any size: copies, masks, order of noise, T or F = 0, evaluation."""
    arrays = oracle.problem(**sizes)
    expected = oracle.solve(arrays)
    leo, episode, noise = our_side(arrays)
    H = leo.num_latents
    found, outcome = leo.adaptation(episode.support, noise), leo.outcome(episode, noise)

    copies = expected["code_params"]
    for k in range(episode.support.shape[2]):
        close(found.code_mean, copies[:, :, k, :H], "mean of the code")
        close(found.code_std, oracle.std_of(copies[:, :, k, H:], 0), "std of the code")
    for i, z in enumerate(found.latents):
        # in evaluation the one stored copy stands for all K
        close(z.expand(*expected["latents_steps"][:, i].shape), expected["latents_steps"][:, i], f"z {i}")
    decodes, tuned = (expected[f"{name}_weights_steps"].mean(3) for name in ("decoder", "finetune"))
    # what is not random leaves only the first and the last
    for found_weights, steps, every in (
        (found.decoded, decodes, noise != NO_NOISE),
        (found.weights, tuned, noise.support_masks is not None),
    ):
        steps = steps if every or steps.shape[1] == 1 else steps[:, [0, -1]]
        assert len(found_weights) == steps.shape[1]
        for i, w in enumerate(found_weights):
            close(w, steps[:, i], f"w {i}")

    close(outcome.logits, expected["val_logits"], "logits")
    if not leo.training:
        stages = leo.stages(episode.support)
        assert list(stages) == ["before_adaptation", "after_latent_steps", "final"]
        for classifier, weight in zip(
            stages.values(), (decodes[:, 0], decodes[:, -1], tuned[:, -1]), strict=True
        ):
            close(classifier.weight, weight, "stage")

    terms = {
        "cross_entropy": expected["val_ce"].mean(),
        "kl": arrays["cfg_kl_weight"] * expected["kl"].mean(),
        "encoder_penalty": arrays["cfg_encoder_penalty_weight"] * expected["encoder_penalty"].mean(),
        "l2_penalty": expected["l2_term"],
        "orthogonality_penalty": expected["orthogonality_term"],
    }
    if not leo.training:
        assert terms.pop("kl") == terms.pop("encoder_penalty") == 0
    assert set(outcome.terms) == set(terms)
    for name, value in terms.items():
        close(outcome.terms[name], value, name)
    close(outcome.loss, expected["meta_loss"], "loss")


@pytest.mark.parametrize(
    "sizes",
    [
        {"T": 2, "F": 2},
        {"T": 2, "F": 1, "K": 3, "dropout": 0.3},
        {"T": 0, "F": 2, "dropout": 0.3},
        {"T": 2, "F": 0, "B": 1},
        {"T": 3, "F": 3, "N": 2, "training": False},
    ],
    ids=str,
)
def test_outer_gradient_is_the_oracles(sizes: dict):
    """Catches a detached inner gradient, a missing stop-gradient, any wrong second derivative."""
    arrays = oracle.problem(5, **sizes)
    leo, episode, noise = our_side(arrays)
    expected = oracle.outer_gradients(arrays)
    named = variables(leo)
    found = torch.autograd.grad(leo.outcome(episode, noise).loss, list(named.values()))
    for name, gradient in zip(named, found, strict=True):
        assert gradient.abs().max() > 1e-4
        close(theirs(gradient), expected[name], name)
    for name in expected.keys() - named.keys():
        assert not expected[name].any()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outer_gradient_is_second_order(dropout: float):
    """Finite differences of the loss by every parameter and the support. Catches a detached inner gradient.

    Without the encoder penalty, whose stop-gradient a difference cannot know.
    """
    arrays = oracle.problem(5, dropout=dropout)
    arrays["cfg_encoder_penalty_weight"] = np.array(0.0)
    leo, episode, noise = our_side(arrays)
    # no std near its clamp, where the loss has a kink
    raw = oracle.solve(arrays)["code_params"][..., leo.num_latents :]
    assert np.abs(raw).min() > 1e-3
    assert (raw > 0).any()
    names = list(dict(leo.named_parameters()))
    parameters = [p.detach().clone().requires_grad_() for p in leo.parameters()]
    support = episode.support.clone().requires_grad_()

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leo = leo

        def forward(self, support: Tensor) -> Tensor:
            return self.leo.outcome(Episode(support, episode.query), noise).loss

    def loss(support: Tensor, *values: Tensor) -> Tensor:
        state = {f"leo.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Loss(), state, (support,))

    assert torch.autograd.gradcheck(loss, (support, *parameters), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("rate", ["alpha", "eta"])
def test_gradients_reach_the_learned_rates_per_dimension(rate: str):
    """Catches a scalar learning rate and a rate applied outside the graph."""
    leo, episode = small_leo(), episode_of()
    noise = noise_of(leo, episode)
    parameter = getattr(leo, rate)
    assert parameter.shape == ({"alpha": 4, "eta": 6}[rate],)
    gradient = gradients(leo.outcome(episode, noise).loss, leo)[rate]
    assert len(gradient.unique()) == len(gradient)
    step = 1e-6
    for d in range(len(parameter)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[d] += sign * step
                # the stop-gradient holds the adapted code, which α moves
                outcome = leo.outcome(episode, noise)
                losses.append(outcome.loss - outcome.terms["encoder_penalty"])
                parameter[d] -= sign * step
        torch.testing.assert_close(gradient[d], (losses[0] - losses[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_stop_gradient_is_on_the_adapted_code():
    """Catches a penalty that pulls the adapted codes to the encoder, or both to each other."""
    leo, episode = small_leo(), episode_of()
    noise = noise_of(leo, episode)
    found = leo.adaptation(episode.support, noise)
    constant = found.latents[-1].detach()
    expected = leo.encoder_penalty_weight * (constant - found.latents[0]).square().mean()
    parameters = dict(leo.named_parameters())
    penalty = leo.outcome(episode, noise).terms["encoder_penalty"]
    torch.testing.assert_close(penalty, expected)
    a = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True)
    b = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    for name, mine, other in zip(parameters, a, b, strict=True):
        reached = name.startswith(("encoder", "relation_net"))
        assert (mine is not None and mine.abs().max() > 1e-6) == (other is not None) == reached
        if reached:
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_evaluation_is_the_same_in_every_gradient_mode(dtype: torch.dtype):
    """Catches noise in evaluation, an inner loop that needs autograd, and modes that differ in a bit."""
    leo, episode = small_leo().to(dtype).eval(), episode_of()
    episode = Episode(episode.support.to(dtype), episode.query.to(dtype))
    expected = leo(episode)
    for mode in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            outcome = leo(episode)
            classifier = leo.adapt(episode.support)
            logits = classifier(episode.query)
        assert torch.equal(outcome.logits, expected.logits)
        assert torch.equal(outcome.loss, expected.loss)
        assert torch.equal(logits, expected.logits)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_mode_works_without_gradients(mode: Callable):
    """Catches an inner loop that needs autograd while it samples."""
    leo, episode = small_leo(), episode_of()
    noise = noise_of(leo, episode)
    expected = leo.outcome(episode, noise).loss
    with mode():
        assert torch.equal(leo.outcome(episode, noise).loss, expected)


def test_way_and_shot_may_differ_from_training():
    """Catches a layer or a state whose size is that of the training tasks."""
    arrays = oracle.problem(4, N=3, K=2)
    leo, episode, noise = our_side(arrays)
    leo.outcome(episode, noise).loss.backward()
    leo.eval()
    for N, K, Q in ((5, 1, 3), (2, 4, 1), (3, 2, 2)):
        other = oracle.problem(9, N=N, K=K, Q=Q, training=False) | {w: arrays[w] for w in oracle.VARIABLES}
        outcome = leo(our_side(other)[1])
        close(outcome.logits, oracle.solve(other)["val_logits"], f"{N}-way {K}-shot")


@pytest.mark.parametrize(("T", "F"), [(0, 2), (2, 0), (0, 0), (2, 2)])
def test_every_parameter_gets_a_gradient(T: int, F: int):
    """Catches a learned rate that no step uses: an unused parameter, which stops distributed training."""
    leo, episode = small_leo(latent_steps=T, finetuning_steps=F), episode_of()
    names = {name for name, _ in leo.named_parameters()}
    assert ("alpha" in names, "eta" in names) == (T > 0, F > 0)
    leo(episode, range(0, 0 + len(episode.support))).loss.backward()
    for name, parameter in leo.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert set(leo.eval()(episode).diagnostics) >= {"dead_latents", "clamped_stds"}


@pytest.mark.parametrize("training", [True, False])
def test_terms_add_up_to_the_loss(training: bool):
    """Catches a logged term without its weight, or one that the loss lacks."""
    leo, episode = small_leo().train(training), episode_of()
    outcome = leo(episode, range(len(episode.support)))
    torch.testing.assert_close(sum(outcome.terms.values()), outcome.loss, rtol=1e-14, atol=0)
    assert all(term > 0 for term in outcome.terms.values())


def test_loss_counts_valid_queries_only():
    """Catches padding that takes part in the loss."""
    leo, episode = small_leo().eval(), episode_of()
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[0, 1, 2:] = valid[1, 2, 1:] = False
    rows = EpisodeRows(
        torch.arange(2),
        torch.zeros(2, 3, 2, dtype=torch.int64),
        torch.zeros(2, 3, 4, dtype=torch.int64),
        valid,
    )
    expected = leo(episode._replace(rows=rows)).loss
    query = torch.where(valid[..., None], episode.query, 100.0)
    assert torch.equal(leo(Episode(episode.support, query, rows)).loss, expected)
    assert not torch.equal(leo(episode).loss, expected)


@pytest.mark.parametrize("training", [True, False])
def test_permuting_classes_permutes_logits(training: bool):
    """Catches a class that is treated by its place, and noise or masks of another class."""
    leo, episode = small_leo().train(training), episode_of()
    noise = noise_of(leo, episode) if training else NO_NOISE
    order = torch.tensor([2, 0, 1])
    permuted = Episode(episode.support[:, order], episode.query[:, order])
    moved = rearranged(noise, lambda x, tasks: x.index_select(tasks + 1, order)) if training else noise
    expected, found = leo.outcome(episode, noise), leo.outcome(permuted, moved)
    torch.testing.assert_close(found.logits, expected.logits[:, order][..., order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=0)


def test_order_of_support_images_does_not_matter():
    """Catches a code that reads one image of a class, or pairs images across classes by place."""
    leo, episode = small_leo().eval(), episode_of(K=3)
    support = episode.support.clone()
    support[:, 1] = support[:, 1, [2, 0, 1]]
    torch.testing.assert_close(
        leo(Episode(support, episode.query)).logits, leo(episode).logits, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("training", [True, False])
def test_tasks_of_a_batch_do_not_influence_each_other(training: bool):
    """Catches an inner loss averaged over the meta-batch, and an outer one that is summed over it."""
    leo, episode = small_leo().train(training), episode_of(B=3)
    noise = noise_of(leo, episode) if training else NO_NOISE
    together = leo.outcome(episode, noise)
    whole = gradients(together.loss, leo)
    mean = {name: torch.zeros_like(gradient) for name, gradient in whole.items()}
    for b in range(3):
        own = rearranged(noise, lambda x, tasks, b=b: x.narrow(tasks, b, 1)) if training else noise
        alone = leo.outcome(Episode(episode.support[b : b + 1], episode.query[b : b + 1]), own)
        torch.testing.assert_close(alone.logits[0], together.logits[b], rtol=0, atol=1e-13)
        for name, gradient in gradients(alone.loss, leo).items():
            mean[name] += gradient / 3
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, mean[name], rtol=1e-10, atol=1e-13)


def test_a_task_sends_no_gradient_to_another():
    """Catches statistics over the meta-batch: task 0's logits must have no derivative by task 1's images."""
    leo, episode = small_leo(), episode_of()
    support = episode.support.requires_grad_()
    logits = leo.outcome(episode, noise_of(leo, episode)).logits
    gradient = torch.autograd.grad(logits[0].square().sum(), support)[0]
    assert gradient[0].abs().max() > 0
    assert not gradient[1].any()


def test_no_dropout_draws_no_masks():
    """Catches masks of ones, which cost time, and masks without dropout."""
    noise = noise_of(small_leo(dropout=0.0), episode_of())
    assert noise.encoder_mask is noise.support_masks is noise.query_mask is None
    assert noise.latents is not None
    assert noise.weights is not None


def test_noise_has_the_shapes_it_is_used_in():
    """Catches draws that broadcast: one mask for all steps, one eps for all copies or decodes."""
    leo = small_leo(latent_steps=3, finetuning_steps=1)
    noise = noise_of(leo, episode_of(B=2, N=3, K=2, Q=5))
    assert noise.latents.shape == (2, 3, 2, 4)
    assert noise.weights.shape == (1 + 3, 2, 3, 2, 6)
    assert noise.encoder_mask.shape == (2, 3, 2, 6)
    assert noise.support_masks.shape == (3 + 1, 2, 3, 2, 6)
    assert noise.query_mask.shape == (2, 3, 5, 6)
    for mask in noise[2:]:
        kept = mask[mask > 0]
        assert 0 < len(kept) < mask.numel()
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7), rtol=1e-4, atol=0)


def test_noise_is_different_everywhere():
    """Catches one draw in two places: decodes, steps, copies, or support and query."""
    leo = small_leo(embedding_size=64, num_latents=64, latent_steps=3, finetuning_steps=3)
    noise = noise_of(leo, episode_of(N=3, K=2, Q=2, E=64))
    normals = [*noise.latents.flatten(0, 2), *noise.weights.flatten(0, 3)]
    masks = [*noise.encoder_mask.flatten(0, 2), *noise.support_masks.flatten(0, 3)]
    masks += [*noise.query_mask.flatten(0, 2)]
    for rows in (torch.stack(normals), torch.stack(masks)):
        correlation = torch.corrcoef(rows).abs().fill_diagonal_(0)
        # thousands of pairs of 64 draws; equal rows would show 1
        assert correlation.max() < 0.75


def test_noise_is_a_function_of_the_seeds():
    """Catches draws from torch's global state, which would tie training to everything else that draws."""
    leo, episode = small_leo(), episode_of()
    state = torch.get_rng_state()
    first, again, other = (noise_of(leo, episode, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    later = noise_of(leo, episode, 3)
    for a, b, c, d in zip(first, again, later, other, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
        assert not torch.equal(a, d)


def test_a_training_step_draws_from_the_seeds_only():
    """Catches a dropout or a sample outside draw_noise."""
    leo, episode = small_leo(), episode_of()
    state = torch.get_rng_state()
    losses = [leo(episode, [100 * seed, 100 * seed + 1]).loss for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != losses[2]
    torch.testing.assert_close(losses[0], leo.outcome(episode, noise_of(leo, episode, 3)).loss)


def test_without_seeds_noise_is_torchs_own():
    """Catches a None that becomes a fixed seed."""
    leo, episode = small_leo(), episode_of()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(leo(episode).loss)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("training", [True, False])
def test_inner_loop_is_in_full_precision_under_autocast(training: bool):
    """Catches gradients, exp or KL in bfloat16: from the same codes come the same bits."""
    leo, episode = small_leo().float().train(training), episode_of()
    episode = Episode(episode.support.float(), episode.query.float())
    noise = noise_of(leo, episode) if training else NO_NOISE
    code = leo.relation_net(leo.encoder(episode.support)).detach()
    leo.relation_net.register_forward_hook(lambda *_: code)
    expected, outcome = leo.adaptation(episode.support, noise), leo.outcome(episode, noise)
    with torch.autocast("cpu", torch.bfloat16):
        found, mixed = leo.adaptation(episode.support, noise), leo.outcome(episode, noise)
    for mine, other in zip(found[:-1], expected[:-1], strict=True):  # but for the bias, which is None
        for a, b in zip(
            mine if isinstance(mine, list) else [mine],
            other if isinstance(other, list) else [other],
            strict=True,
        ):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)
    for name in {"kl", "encoder_penalty", "l2_penalty"} & outcome.terms.keys():
        assert torch.equal(mixed.terms[name], outcome.terms[name])


def test_autocast_stays_close():
    """Catches overflow and lost digits where networks run in bfloat16, forward and backward.

    Without KL: its slope is 1/std, and std = exp(u) - 1 cannot be had from a small u in bfloat16.
    """
    leo, episode = small_leo(kl_weight=0.0).float(), episode_of()
    episode = Episode(episode.support.float(), episode.query.float())
    noise = noise_of(leo, episode)
    expected = leo.outcome(episode, noise)
    with torch.autocast("cpu", torch.bfloat16):
        found = leo.outcome(episode, noise)
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.02, atol=0)
    torch.testing.assert_close(found.logits.float(), expected.logits, rtol=0.05, atol=0.05)
    exact = gradients(expected.loss, leo)
    for name, gradient in gradients(found.loss, leo).items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() < 0.1 * exact[name].norm(), name


@pytest.mark.parametrize("training", [True, False])
def test_forward_leaves_no_gradient_behind(training: bool):
    """Catches inner steps by `.backward()`, which add to the meta-parameters' gradients."""
    leo, episode = small_leo().train(training), episode_of()
    leo(episode, range(len(episode.support)))
    leo.adapt(episode.support)
    assert all(parameter.grad is None for parameter in leo.parameters())


def test_gradients_do_not_depend_on_earlier_steps():
    """Catches a state of one task, or a graph, that is kept on the learner."""
    leo, episode = small_leo(), episode_of()
    noise = noise_of(leo, episode)
    first = gradients(leo.outcome(episode, noise).loss, leo)
    leo(episode_of(B=3, N=4, seed=5), range(9, 12)).loss.backward()
    for name, gradient in gradients(leo.outcome(episode, noise).loss, leo).items():
        assert torch.equal(gradient, first[name])


def test_diagnostics_see_dead_and_clamped_dimensions():
    """Catches a collapse that goes unreported."""
    leo, episode = small_leo().eval(), episode_of()
    code = torch.randn(2, 3, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    code[..., 4:] = code[..., 4:].abs() + 0.1
    code[..., 1] = 0.7  # of four means, one does not tell classes apart
    code[..., 5:8] = -1.0  # of four stds, three are clamped
    leo.relation_net.register_forward_hook(lambda *_: code)
    diagnostics = leo(episode).diagnostics
    assert diagnostics["dead_latents"] == 0.25
    assert diagnostics["clamped_stds"] == 0.75
    torch.testing.assert_close(diagnostics["latent_lr"], leo.alpha.mean())
    torch.testing.assert_close(diagnostics["finetuning_lr"], leo.eta.mean())
    assert not any(value.requires_grad for value in diagnostics.values())


def test_rates_start_at_their_settings():
    """Catches swapped learning rates."""
    leo = LEO(embedding_size=5, num_latents=3)
    assert leo.alpha.tolist() == [1.0] * 3
    torch.testing.assert_close(leo.eta.detach(), torch.full((5,), 0.001))


def test_init_args_rebuild_the_learner():
    """Catches a setting that is used but not kept."""
    leo = small_leo(latent_steps=0)
    again = LEO(**leo.init_args())
    assert again.init_args() == leo.init_args()
    again.to(DOUBLE).load_state_dict(leo.state_dict())
    episode = episode_of()
    noise = noise_of(leo, episode)
    assert torch.equal(again.outcome(episode, noise).loss, leo.outcome(episode, noise).loss)


def test_dropout_without_sampling():
    """Catches one step's mask used in all latent steps, where these stay in H dimensions."""
    leo, episode = small_leo(latent_steps=3, finetuning_steps=2), episode_of(K=2)
    masks = noise_of(leo, episode).support_masks
    assert masks is not None
    found = leo.adaptation(episode.support, Noise(support_masks=masks))
    decode = leo.decoder.weight[:6]

    def gradient(z: torch.Tensor, step: int) -> torch.Tensor:
        return objectives.support_gradient(episode.support * masks[step], z @ decode.T) @ decode

    assert leo.alpha is not None
    expected = adapt(found.code_mean, gradient, leo.alpha / 2, 3)
    for z, other in zip(found.latents, expected, strict=True):
        torch.testing.assert_close(z.squeeze(2), other, rtol=1e-12, atol=1e-14)
    assert len(found.weights) == 3
