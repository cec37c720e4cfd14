"""A threshold for "none of these": the share of known queries that it may reject is chosen by the user.

Split conformal prediction: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, Section
4.2. With scores of m examples that are exchangeable with a known query, the threshold is the ⌈(m + 1)(1 −
share)⌉-th smallest: a known query's score is above it with probability `share` at most.
"""

import math

from jaxtyping import Float64
from torch import Tensor

from leo_lightning.common.errors import InputError


def threshold(scores: Float64[Tensor, " m"], share: float, source: str) -> float:
    """Largest score of a query that is accepted.

    Args:
        scores: of known examples that the classifier has not seen; high means unknown.
        share: of known queries that may be rejected, between 0 and 1.
        source: of the examples, for the message.

    Raises:
        InputError: there are too few examples for a share as small as this.
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - share), 9))
    if rank > len(scores):
        least = 100 / (len(scores) + 1)
        raise InputError(
            f"--reject {100 * share:g}%: needs {math.ceil(round(1 / share, 9)) - 1} examples in classes of "
            f"two or more, and {source} has {len(scores)}; use --reject {math.ceil(10 * least) / 10:g}%, "
            "add examples, or name labelled images or features of other classes with --calibrate"
        )
    return float(scores.sort().values[rank - 1])
