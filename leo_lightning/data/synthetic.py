"""Features that need no download: classes differ in a few directions, nuisance varies in louder ones.

Real embeddings of new classes are similar: the differences between classes are a small part of all variation
(pose, light, background), and they lie in the same directions for all classes. A classifier that weighs all
directions alike, as the nearest centroid does, follows the nuisance; other classes teach which directions to
trust.
"""

from functools import lru_cache

import numpy as np
import torch

from leo_lightning.data.bank import FeatureBank

CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES = 200
EMBEDDING_SIZE = 128
SIGNAL = 24
"""Directions in which class means differ."""
NUISANCE = 24
"""Directions, at random angles to the signal, in which the images of every class vary."""
LOUDNESS = 3.0
"""Standard deviation along a nuisance direction; that of class means along a signal direction is 1."""
WITHIN = 0.7
"""Standard deviation within a class along a signal direction."""
FLOOR = 0.1
"""Standard deviation of isotropic noise."""


@lru_cache(maxsize=1)
def synthesize(seed: int = 0) -> dict[str, FeatureBank]:
    """Return the banks of all three splits, a function of the seed."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((SIGNAL, EMBEDDING_SIZE)) / np.sqrt(EMBEDDING_SIZE)
    nuisance = rng.standard_normal((NUISANCE, EMBEDDING_SIZE)) / np.sqrt(EMBEDDING_SIZE)
    offset = rng.standard_normal(EMBEDDING_SIZE) / np.sqrt(EMBEDDING_SIZE)
    banks = {}
    for split, classes in CLASSES.items():
        labels = np.repeat(np.arange(classes), IMAGES)
        means = rng.standard_normal((classes, SIGNAL))
        codes = means[labels] + WITHIN * rng.standard_normal((len(labels), SIGNAL))
        noise = LOUDNESS * rng.standard_normal((len(labels), NUISANCE))
        floor = FLOOR * rng.standard_normal((len(labels), EMBEDDING_SIZE))
        embeddings = (offset + codes @ signal + noise @ nuisance + floor).astype(np.float32)
        banks[split] = FeatureBank.from_arrays(
            torch.from_numpy(embeddings),
            [f"{split}{label:02d}" for label in labels],
            provenance={"dataset": "synthetic", "split": split, "seed": str(seed)},
            source=f"synthetic {split}",
        )
    return banks
