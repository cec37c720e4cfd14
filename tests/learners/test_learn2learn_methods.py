"""MAML and Meta-SGD of learn2learn and ours: two ways to the same numbers."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.learn2learn_methods import Learn2LearnMAML, Learn2LearnMetaSGD
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from tests.learners.mlp_tasks import DOUBLE, Contract, build, episode_of, gradients

PAIRS = [(MAML, Learn2LearnMAML), (MetaSGD, Learn2LearnMetaSGD)]


class TestLearn2LearnMAML(Contract):
    kind, settings = Learn2LearnMAML, {"hidden_size": 5, "inner_lr": 0.7}


class TestLearn2LearnMetaSGD(Contract):
    kind, settings = Learn2LearnMetaSGD, {"hidden_size": 5, "inner_lr": 0.7}


@pytest.mark.parametrize(
    ("pair", "settings"),
    [(PAIRS[0], {}), (PAIRS[0], {"first_order": True}), (PAIRS[1], {})],
    ids=["MAML", "first-order MAML", "Meta-SGD"],
)
def test_weights_and_outer_gradients_are_the_same(
    pair: tuple[type[AdaptedMLP], type[AdaptedMLP]], settings: dict[str, bool]
):
    """Catches another algorithm under the same name: either library's bug would show."""
    ours, theirs = (build(kind, hidden_size=5, inner_lr=0.7, **settings) for kind in pair)
    if isinstance(ours, MetaSGD):
        with torch.no_grad():
            for name, rate in ours.named_parameters():
                if name.endswith("_rate"):
                    rate.mul_(torch.rand_like(rate) + 0.5)
    theirs.load_state_dict(ours.state_dict())
    episode = episode_of(B=3, N=4)
    adapted = (learner.every_step(episode.support)[-1] for learner in (ours, theirs))
    for mine, other in zip(*adapted, strict=True):
        torch.testing.assert_close(mine.weight, other.weight, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(mine.bias, other.bias, rtol=1e-10, atol=1e-10)
    mine, other = ours(episode), theirs(episode)
    torch.testing.assert_close(mine.logits, other.logits, rtol=1e-10, atol=1e-10)
    expected = gradients(other.loss, theirs)
    for name, gradient in gradients(mine.loss, ours).items():
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [Learn2LearnMAML, Learn2LearnMetaSGD])
def test_forward_leaves_nothing_behind(kind: type[AdaptedMLP]):
    """Catches inner steps that add to the gradients of the parameters, or change them."""
    learner = build(kind)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    learner(episode_of())
    assert all(parameter.grad is None for parameter in learner.parameters())
    after = learner.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", [Learn2LearnMAML, Learn2LearnMetaSGD])
def test_compiling_is_refused(kind: type[AdaptedMLP]):
    """Catches a page of torch's about graph breaks."""
    with pytest.raises(InputError, match=f"cannot compile {kind.__name__}"):
        kind().check_compilable()


def test_the_import_says_nothing(tmp_path: Path):
    """Catches Gym's notice on every run, and an import before there is anything to adapt."""
    package = tmp_path / "learn2learn"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nprint('notice', file=sys.stderr)\n")
    (package / "algorithms.py").write_text("import warnings\nwarnings.warn('old')\n")
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from leo_lightning.common.learn2learn import learn2learn_module\n"
        "from leo_lightning.learners.learn2learn_methods import Learn2LearnMAML\n"
        "Learn2LearnMAML(embedding_size=3)\n"
        "print('learn2learn' in sys.modules)\n"
        "learn2learn_module('algorithms', 'this learner')\n"
        "print('learn2learn.algorithms' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    """Catches a traceback where learn2learn is not installed."""
    from leo_lightning.common.learn2learn import learn2learn_module

    learn2learn_module.cache_clear()
    monkeypatch.setitem(sys.modules, "learn2learn.algorithms", None)
    with pytest.raises(InputError, match=r"this learner needs .*: pip install .* learn2learn==0\.2\.0$"):
        Learn2LearnMAML(embedding_size=3).double().adapt(torch.ones(1, 2, 1, 3, dtype=DOUBLE))
