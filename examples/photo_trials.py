"""Try methods without training on photos: `python -m examples.photo_trials FEATURES`.

FEATURES is a folder that `features extract` made of `python -m examples.photos`. Prints numbers of
docs/new-classes.md: the estimate by held-out examples beside the truth, the AUROC of classes without
examples, and classes of 1 to 10 examples. Tasks: 6 classes, 6 queries of each, 60 draws.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.splits import load_splits
from leo_lightning.inference.held_out import held_out
from leo_lightning.inference.ways import ways

TASKS, WAY, QUERY = 60, 6, 6
UNEQUAL = (1, 1, 3, 3, 10, 10)


def draw(
    classes: list[torch.Tensor], shots: Sequence[int], task: int
) -> tuple[FeatureBank, torch.Tensor, torch.Tensor]:
    """A support, queries of its classes, and queries of six others."""
    generator = np.random.default_rng(task)
    chosen = [classes[number] for number in generator.permutation(len(classes))[: 2 * WAY]]
    photos = generator.permutation(24)
    support = [part[photos[:shot]] for part, shot in zip(chosen, shots, strict=False)]
    asked = photos[max(shots) : max(shots) + QUERY]
    query = torch.stack([part[asked] for part in chosen])
    bank = FeatureBank.from_arrays(torch.cat(support), np.repeat(np.arange(WAY), shots))
    return bank, query[:WAY].flatten(0, 1), query[WAY:].flatten(0, 1)


def main(features: Path) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    banks = load_splits(features).values()
    classes = [part for bank in banks for part in bank.embeddings.split(bank.counts.tolist())]
    labels, way = torch.arange(WAY).repeat_interleave(QUERY), ways(None)["logistic-regression"]
    print("logistic regression  held out  queries  AUROC: distance  entropy")
    for shot in (1, 3, 5, 18):
        numbers = []
        for task in range(TASKS):
            support, known, unknown = draw(classes, [shot] * WAY, task)
            classifier = way.fit(support)
            (answer,), (other,) = classifier.answers(known), classifier.answers(unknown)
            truth = [0] * len(known) + [1] * len(unknown)
            scores = (
                torch.cat([classifier.distance(known), classifier.distance(unknown)]),
                torch.cat([answer.entropy(), other.entropy()]),
            )
            estimate = float(held_out(support, way.fit).right.mean()) if 1 < shot < 18 else np.nan
            accuracy = float((answer.probability.argmax(1) == labels).double().mean())
            numbers.append([estimate, accuracy, *(roc_auc_score(truth, score) for score in scores)])
        estimate, accuracy, distance, entropy = np.mean(numbers, axis=0)
        shown = "" if np.isnan(estimate) else f"{estimate:.1%}"
        print(f"{shot:2} of each class {shown:>13} {accuracy:8.1%} {distance:16.2f} {entropy:8.2f}")
    print(f"\n{', '.join(map(str, UNEQUAL))} of the classes")
    hits: dict[str, list[float]] = {}
    for task in range(TASKS):
        support, known, _ = draw(classes, UNEQUAL, task)
        for name, each in ways(None).items():
            (answer,) = each.fit(support).answers(known)
            hits.setdefault(name, []).append(float((answer.probability.argmax(1) == labels).double().mean()))
        unit = torch.nn.functional.normalize
        plain = LogisticRegression(C=3.0, max_iter=10_000).fit(unit(support.embeddings), support.labels)
        right = float((torch.from_numpy(plain.predict(unit(known))) == labels).double().mean())
        hits.setdefault("logistic-regression, each photo counted once", []).append(right)
    for name, values in hits.items():
        print(f"{name:46} {np.mean(values):.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
