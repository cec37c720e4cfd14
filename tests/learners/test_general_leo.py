"""LEO in its general form: against LEO itself for classification, against plain layers for regression."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.data.functions import sample_points
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.linear_softmax import LinearSoftmax
from leo_lightning.learners.parts.inner_loop import shortened
from leo_lightning.learners.parts.noise import NO_NOISE
from tests.learners.tasks import episode_of, moved
from tests.oracles import regression_plain as oracle

DOUBLE = torch.float64
WEIGHTS = {"kl_weight": 0.1, "encoder_penalty_weight": 0.3}


def regression(**settings: object) -> GeneralLEO:
    """A small LEO for regression, in float64, with nothing at zero."""
    defaults = {
        "embedding_size": 2, "base": MLPRegressor(1, (5, 3)), "num_latents": 3, "encoder_sizes": (4,),
        "decoder_sizes": (6, 5), "latent_steps": 2, "finetuning_steps": 2, "latent_lr": 0.01,
        "finetuning_lr": 0.003, "l2_penalty_weight": 0.0, "orthogonality_penalty_weight": 0.0, **WEIGHTS,
    }  # fmt: skip
    torch.manual_seed(0)
    return moved(GeneralLEO(**(defaults | settings)), by=0.1)


def points(B: int = 3, shot: int = 4) -> Episode:
    episode = sample_points(range(B), 0, "train", shot, 6, 0.3)
    return episode._replace(support=episode.support.double(), query=episode.query.double())


def gradients(learner: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    parameters = dict(learner.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def test_with_a_linear_softmax_it_is_leo():
    """Catches any difference to the optimised classification but in its noise: values, and all gradients."""
    rates = {"latent_lr": 0.3, "finetuning_lr": 0.2}
    common = {
        "num_latents": 4, "latent_steps": 2, "finetuning_steps": 2, "l2_penalty_weight": 0.01,
        "orthogonality_penalty_weight": 0.2, **rates, **WEIGHTS,
    }  # fmt: skip
    torch.manual_seed(0)
    leo = moved(LEO(6, dropout=0.0, deterministic=True, **common))
    general = GeneralLEO(6, base=LinearSoftmax(), encoder_sizes=(), decoder_sizes=(), **common).double()
    names = {"encoder.weight": "encoder.layers.0.weight", "decoder.weight": "decoder.layers.0.weight"}
    # LEO has rates for the mean over K copies of a code, of which the general form has one
    K = 2
    initial = {"alpha": K * rates["latent_lr"], "eta": K * rates["finetuning_lr"]}
    stored = {names.get(name, name): x / initial.get(name, 1.0) for name, x in leo.state_dict().items()}
    lacking, unknown = general.load_state_dict(stored, strict=False)
    assert set(lacking) == {"encoder.layers.0.bias", "decoder.layers.0.bias"}
    assert not unknown
    episode = episode_of(K=K)
    ours, theirs = general.outcome(episode, NO_NOISE), leo.outcome(episode, leo.draw_noise(episode, [1, 2]))
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-12, atol=1e-12)
    found, wanted = gradients(general, ours.loss), gradients(leo, theirs.loss)
    for name, gradient in wanted.items():
        mine = found[names.get(name, name)] / initial.get(name, 1.0)
        torch.testing.assert_close(mine, gradient, rtol=1e-10, atol=1e-12)
    for stage, classifier in leo.eval().stages(episode.support).items():
        same = general.eval().stages(episode.support)[stage](episode.query)
        torch.testing.assert_close(same, classifier(episode.query), rtol=1e-12, atol=1e-12)


def test_regression_is_that_of_the_paper():
    """Catches a wrong unpacking, a detached inner gradient, noise of another decode, a mean for a sum."""
    learner, episode = regression(), points()
    noise = learner.draw_noise(episode, [5, 6, 7])
    assert noise.latents is not None
    assert noise.weights is not None
    parameters = dict(learner.named_parameters())
    losses, thetas = zip(
        *(
            oracle.task_loss(
                parameters, [1, 5, 3, 1], episode.support[task, 0], episode.query[task, 0],
                noise.latents[task, 0], noise.weights[:, task, 0], (2, 2), (0.1, 0.3), (0.01, 0.003),
                (0.1, 0.02),
            )
            for task in range(3)
        ),
        strict=True,
    )  # fmt: skip
    outcome = learner.outcome(episode, noise)
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-10, atol=1e-12)
    theta = learner.adaptation(episode.support, noise).weights[-1][:, 0]
    torch.testing.assert_close(theta, torch.stack(thetas), rtol=1e-10, atol=1e-12)
    wanted = gradients(learner, loss)
    for name, gradient in gradients(learner, outcome.loss).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("hidden", [(40, 40), (7,), (3, 4, 5), ()])
def test_any_layer_sizes(hidden: tuple[int, ...]):
    """Catches a number of parameters that is not the network's: 1,761 for the paper's."""
    base = MLPRegressor(1, hidden)
    sizes = [1, *hidden, 1]
    count = sum((a + 1) * b for a, b in pairwise(sizes))
    assert len(base.initial(2)) == count
    assert count == 1761 or hidden != (40, 40)
    theta = torch.randn(2, 1, count, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    query = points(2).query
    theirs = oracle.perceptron(oracle.unpacked(theta[1, 0], sizes), query[1, 0, :, :1])
    torch.testing.assert_close(base.predictor(theta)(query)[1, 0], theirs)


def test_answers_do_not_see_the_true_values():
    """Catches a prediction that is made from the number it is to predict."""
    learner, episode = regression().eval(), points()
    blind = episode.query.clone()
    blind[..., 1] = torch.nan
    answer = learner.adapt(episode.support)
    assert torch.equal(answer(blind), answer(episode.query))


def test_samples_are_the_same_in_every_call_and_differ():
    """Catches samples out of a global generator, and samples that are the mean."""
    learner, episode = regression().eval(), points()
    with torch.inference_mode():
        first, again = (
            torch.stack([f(episode.query) for f in learner.samples(episode.support, 3)]) for _ in range(2)
        )
        alone = next(iter(learner.samples(episode.support[1:2], 1)))(episode.query[1:2])
    assert torch.equal(first, again)
    torch.testing.assert_close(alone[0], first[0, 1])
    assert (first.std(0) > 1e-3).all()


def test_a_gradient_without_bound_is_clipped():
    """Catches a clip of the whole meta-batch in place of a task's, and one that shrinks small gradients."""
    learner, episode = regression(gradient_clip=2.0), points()
    theta = learner.adaptation(episode.support, NO_NOISE).decoded[0]
    theta = torch.cat([0.0 * theta[:1], 5 * theta[1:]])
    plain = learner.base.support_gradient(theta, episode.support)
    clipped = shortened(plain, learner.gradient_clip)
    lengths = plain.norm(dim=-1, keepdim=True)
    assert lengths.max() > 2
    torch.testing.assert_close(clipped, torch.where(lengths > 2, 2 * plain / lengths, plain))


def test_noise_hangs_on_the_task():
    """Catches noise that changes when a meta-batch is divided among processes."""
    learner, episode = regression().train(), points()
    whole = learner.draw_noise(episode, [5, 6, 7])
    part = learner.draw_noise(Episode(episode.support[1:2], episode.query[1:2]), [6])
    for one, other, dim in ((whole.latents, part.latents, 0), (whole.weights, part.weights, 1)):
        assert one is not None
        assert other is not None
        assert torch.equal(one.narrow(dim, 1, 1), other)


def test_rates_that_no_step_uses_are_no_parameters():
    """Catches parameters without gradient, which DDP refuses."""
    learner = regression(latent_steps=0, finetuning_steps=0)
    assert not {"alpha", "eta"} & dict(learner.named_parameters()).keys()
    learner.outcome(points(), learner.draw_noise(points(), [1, 2, 3])).loss.backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_latents": 0}, "num_latents, encoder_sizes and decoder_sizes is 0: it must be at least 1"),
        ({"latent_lr": -1.0}, "latent_lr is -1.0: it must be at least 0"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0.0: it must be a number above 0"),
        ({"embedding_size": 3}, "inputs is 1, and a point of the data has 2"),
    ],
)
def test_bad_settings(settings: dict[str, object], line: str):
    """Catches a setting that is refused without its name, or not at all."""
    with pytest.raises(InputError, match=line):
        regression(**settings)
