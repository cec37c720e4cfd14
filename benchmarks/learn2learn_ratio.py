"""`python -m benchmarks.learn2learn_ratio`: a training step by learn2learn in units of the same step by ours.

Loss and backward pass of a meta-batch, 5-way 1-shot, 15 queries, on random embeddings. The two take turns, so
that a slow minute of the machine slows both.
"""

import argparse
from functools import partial

import torch

from benchmarks.rounds import Repeated, Row, measure
from benchmarks.sizes import Sizes
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learn2learn_methods import Learn2LearnMAML, Learn2LearnMetaSGD
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_sgd import MetaSGD


def rows(sizes: Sizes, budget: float) -> dict[str, list[Row]]:
    """By method: our step, then learn2learn's."""
    shape = (sizes.tasks, sizes.way)
    support, query = (torch.randn(*shape, images, sizes.embedding_size) for images in (1, sizes.query))
    episode = Episode(*(torch.nn.functional.normalize(each, dim=-1) for each in (support, query)))
    E, first_order = sizes.embedding_size, {"first_order": True}
    pairs: dict[str, tuple[Learner, Learner]] = {
        "MAML": (MAML(E), Learn2LearnMAML(E)),
        "first-order MAML": (MAML(E, **first_order), Learn2LearnMAML(E, **first_order)),
        "Meta-SGD": (MetaSGD(E), Learn2LearnMetaSGD(E)),
    }
    return {
        name: [
            Row(library, f"{name}, {library}", Repeated(partial(step, learner, episode), budget), sizes.tasks)
            for library, learner in zip(("ours", "learn2learn"), learners, strict=True)
        ]
        for name, learners in pairs.items()
    }


def step(learner: Learner, episode: Episode) -> None:
    """A training step without its optimiser."""
    learner.zero_grad()
    learner(episode).loss.backward()


def main(argv: list[str] | None = None, sizes: Sizes | None = None) -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.learn2learn_ratio", description=__doc__)
    options.add_argument("--rounds", type=int, default=7, help="how often each is measured (default: 7)")
    options.add_argument("--budget", type=float, default=1.0, help="seconds of a measurement (default: 1)")
    chosen = options.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, pair in rows(sizes or Sizes(), chosen.budget).items():
        ours, theirs = measure(pair, chosen.rounds, lambda what: None).values()
        times = [f"{1e3 * sorted(each.seconds)[len(each.seconds) // 2]:.1f} ms" for each in (ours, theirs)]
        ratios = sorted(theirs.ratios)
        middle = ratios[len(ratios) // 2]
        print(
            f"{name}: ours {times[0]}, learn2learn {times[1]}, "
            f"ratio {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
