"""`python -m benchmarks.easyfsl_ratio`: tasks per second of methods that easyfsl has, too, by it and by ours.

Test tasks, 5-way 1-shot, 75 queries, on random embeddings of length 1, with the same number of iterations. A
batch of tasks is adapted and answered: by easyfsl one by one, since its methods take one task. The two take
turns, so that a slow minute of the machine slows both. The first column says how many queries both answer
alike; methods that differ from easyfsl on purpose say so in their docstrings.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rounds import Repeated, Row, measure
from benchmarks.sizes import Sizes
from leo_lightning.learners.bdcspn import BDCSPN
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.laplacian_shot import LaplacianShot
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.matching import MatchingNetworks
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.learners.pt_map import PTMAP
from leo_lightning.learners.tim import TIM
from leo_lightning.learners.transductive_finetuning import TransductiveFinetuning


class Peers(NamedTuple):
    """A method by both libraries."""

    ours: Learner
    theirs: Any
    """A classifier of easyfsl."""


def peers(E: int) -> dict[str, Peers]:
    """By name; defaults of easyfsl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of what easyfsl imports
        from easyfsl import methods

    return {
        "Prototypical Networks": Peers(PrototypicalNetworks(E), methods.PrototypicalNetworks()),
        "SimpleShot": Peers(NearestCentroid(), methods.SimpleShot()),
        "Matching Networks": Peers(
            MatchingNetworks(E, full_context=True), methods.MatchingNetworks(feature_dimension=E)
        ),
        "BD-CSPN": Peers(BDCSPN(), methods.BDCSPN()),
        "LaplacianShot": Peers(LaplacianShot(), methods.LaplacianShot()),
        "TIM-GD, 50 steps": Peers(TIM("gd", steps=50), methods.TIM()),
        "PT-MAP, 10 steps": Peers(PTMAP(steps=10), methods.PTMAP()),
        "transductive fine-tuning": Peers(TransductiveFinetuning(), methods.TransductiveFinetuning()),
    }


def by_ours(learner: Learner, support: Tensor, query: Tensor) -> Tensor:
    """Classes of the queries of B tasks."""
    with torch.inference_mode():
        return learner.adapt(support)(query.flatten(1, 2)).argmax(-1)


def by_easyfsl(method: Any, support: Tensor, query: Tensor) -> Tensor:
    """The same, task by task; its methods that fine-tune need autograd."""
    labels = torch.arange(support.shape[1]).repeat_interleave(support.shape[2])
    answers = []
    for images, asked in zip(support.flatten(1, 2), query.flatten(1, 2), strict=True):
        method.process_support_set(images, labels)
        answers.append(method(asked).argmax(-1))
    return torch.stack(answers)


def main(argv: list[str] | None = None, sizes: Sizes | None = None) -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.easyfsl_ratio", description=__doc__)
    options.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: 7)")
    options.add_argument("--budget", type=float, default=1.0, help="seconds of a measurement (default: 1)")
    chosen, sizes = options.parse_args(argv), sizes or Sizes()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = (sizes.eval_tasks, sizes.way)
    centres = torch.randn(*shape, 1, sizes.embedding_size)
    support, query = (
        F.normalize(centres + 2 * torch.randn(*shape, images, sizes.embedding_size), dim=-1)
        for images in (1, sizes.query)
    )
    for name, (ours, theirs) in peers(sizes.embedding_size).items():
        work: dict[str, Callable[[], Tensor]] = {
            "ours": partial(by_ours, ours.eval(), support, query),
            "easyfsl": partial(by_easyfsl, theirs.eval(), support, query),
        }
        alike = (work["ours"]() == work["easyfsl"]()).double().mean()
        pair = [Row(who, f"{name}, {who}", Repeated(call, chosen.budget)) for who, call in work.items()]
        times = measure(pair, chosen.rounds, lambda what: None)
        speeds = {
            who: sizes.eval_tasks / sorted(each.seconds)[len(each.seconds) // 2]
            for who, each in times.items()
        }
        ratios = sorted(times["easyfsl"].ratios)
        print(
            f"{name}: alike {100 * alike:.1f} %, ours {speeds['ours']:,.0f} tasks/s, easyfsl "
            f"{speeds['easyfsl']:,.0f}, ratio {ratios[len(ratios) // 2]:.1f} "
            f"({ratios[0]:.1f} to {ratios[-1]:.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
