"""95% confidence intervals. Importing this file does not import torch."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def half_width(values: "Tensor | np.ndarray") -> float:
    """Half-width of the 95% confidence interval of a mean: 1.96 standard errors; NaN for one value."""
    count = len(values)
    if count < 2:
        return math.nan
    deviation = values.std(ddof=1) if isinstance(values, np.ndarray) else values.std().item()
    return 1.96 * float(deviation) / math.sqrt(count)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95% confidence interval of a proportion of independent queries; it stays within 0 and 1.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference. Journal of the American
    Statistical Association 22, 1927.

    Args:
        hits: queries classified correctly.
        count: all queries.
    """
    z2, share = 1.96**2, hits / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return centre - half, centre + half
