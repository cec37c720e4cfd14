"""LEO, Latent Embedding Optimization (Rusu et al., ICLR 2019), on PyTorch Lightning.

    from leo_lightning import EpisodeDataModule, LEOClassifier, MetaLearner
    from leo_lightning.learners import LEO

    model = MetaLearner(LEO())
    pytorch_lightning.Trainer(max_steps=100).fit(model, EpisodeDataModule())

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from leo_lightning.common.version import __version__

if TYPE_CHECKING:
    from leo_lightning.data.bank import FeatureBank
    from leo_lightning.data.datamodule import EpisodeDataModule
    from leo_lightning.inference.leo_classifier import LEOClassifier
    from leo_lightning.training.meta_learner import MetaLearner

__all__ = ["EpisodeDataModule", "FeatureBank", "LEOClassifier", "MetaLearner", "__version__"]

_MODULES = {
    "EpisodeDataModule": "data.datamodule",
    "FeatureBank": "data.bank",
    "LEOClassifier": "inference.leo_classifier",
    "MetaLearner": "training.meta_learner",
}


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names that tab completion offers, imported or not."""
    return sorted({*globals(), *__all__})
