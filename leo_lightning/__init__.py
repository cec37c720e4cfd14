"""LEO, Latent Embedding Optimization (Rusu et al., ICLR 2019), on PyTorch Lightning."""

__version__ = "0.1.0"
