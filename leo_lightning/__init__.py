"""LEO, Latent Embedding Optimization (Rusu et al., ICLR 2019), on PyTorch Lightning."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leo_lightning.inference.leo_classifier import LEOClassifier

__version__ = "0.1.0"
__all__ = ["LEOClassifier", "__version__"]


def __getattr__(name: str) -> "type[LEOClassifier]":
    """Import what takes long only when it is asked for."""
    if name != "LEOClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leo_lightning.inference.leo_classifier import LEOClassifier

    return LEOClassifier
