"""Checkpoints: the learner in one, and what one cannot do."""

import sys
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.leo import LEO
from leo_lightning.training.checkpoint import load_learner, read_checkpoint
from leo_lightning.training.meta_learner import MetaLearner
from tests.guard import outcome
from tests.training.models import data, system, trainer


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_learner_keeps_all_digits(precision: str, tmp_path: Path):
    """Catches float64 weights that pass through float32, dropout left on, and random numbers drawn."""
    model, runner = system(), trainer(tmp_path, max_steps=1, precision=precision)
    runner.fit(model, data())
    runner.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.get_rng_state()
    learner = load_learner(read_checkpoint(tmp_path / "x.ckpt"), tmp_path / "x.ckpt")
    assert torch.equal(torch.get_rng_state(), state)
    assert not learner.training
    again = MetaLearner.load_from_checkpoint(tmp_path / "x.ckpt")
    assert again.training
    assert again.dtype == model.dtype
    for loaded in (learner, again.learner):
        for name, weight in model.learner.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    runner = trainer(tmp_path, max_steps=1)
    runner.fit(system(), data())
    runner.save_checkpoint(tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


FORGED = {
    "_instantiator": ({"_instantiator": "os.system"}, None),
    "os.system": ({"learner": {"class_path": "os.system", "init_args": {}}}, "which is not imported"),
    "Popen": (
        {"learner": {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}},
        "names 'subprocess.Popen' as its learner",
    ),
    "module": ({"learner": {"class_path": "this.s", "init_args": {}}}, "which is not imported"),
    "own module": (
        {"learner": {"class_path": "leo_lightning.learners.learner.Learner", "init_args": {}}},
        "cannot build leo_lightning.learners.learner.Learner",
    ),
    "no such": (
        {"learner": {"class_path": "leo_lightning.learners..x", "init_args": {}}},
        "which is not imported",
    ),
    "_class_path": ({"_class_path": "subprocess.Popen", "args": "true"}, None),
    "text": ({"learner": "os.system"}, "not a checkpoint of this application"),
    "list": (
        {"learner": {"class_path": ["os.system"], "init_args": {}}},
        "not a checkpoint of this application",
    ),
    "size": (
        {"learner": {"class_path": "leo_lightning.learners.leo.LEO", "init_args": {"embedding_size": 10**7}}},
        "weights do not fit",
    ),
    "argument": (
        {"learner": {"class_path": "leo_lightning.learners.leo.LEO", "init_args": {"x": 1}}},
        "cannot build leo_lightning.learners.leo.LEO",
    ),
}


@pytest.mark.parametrize("name", list(FORGED))
def test_checkpoint_cannot_choose_what_is_called(name: str, saved: Path, tmp_path: Path):
    """Catches a file of weights that imports or calls what it names, on being loaded in Python."""
    changes, message = FORGED[name]
    content = torch.load(saved, weights_only=True)
    content["hyper_parameters"] |= changes
    torch.save(content, saved)
    sys.modules.pop("this", None)
    loaded = outcome(lambda: MetaLearner.load_from_checkpoint(saved), tmp_path)
    assert "this" not in sys.modules
    if message is None:
        assert isinstance(loaded, MetaLearner)
        assert isinstance(loaded.learner, LEO)
    else:
        assert isinstance(loaded, InputError)
        assert message in str(loaded)
