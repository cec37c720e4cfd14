"""`classify`: learn new classes from a few labelled examples, and classify others."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.program import called
from leo_lightning.common.spreadsheet import csv_cell

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from leo_lightning.data.bank import FeatureBank
    from leo_lightning.data.new_classes import Images
    from leo_lightning.inference.adapted_classifier import AdaptedClassifier

MOST = 20
"""Classes whose probabilities get a column each."""


def main(arguments: Sequence[str]) -> None:
    """Classify the queries, and write a line for each."""
    typed = _parser().parse_args(arguments)
    from leo_lightning.common.files import check_place, whole_file
    from leo_lightning.data.bank import listed
    from leo_lightning.data.new_classes import check_made_alike, check_size, support_of
    from leo_lightning.inference.new_images import backbone_beside, read_any
    from leo_lightning.inference.trained_model import TrainedModel

    check_place(typed.out)
    trained = TrainedModel.load(typed.ckpt_path)
    provenance = trained.record.provenance
    backbone = typed.backbone or backbone_beside(typed.ckpt_path)
    support = support_of(read_any(typed.support, True, backbone, provenance))
    images = read_any(typed.query, False, backbone, provenance)
    query = images.bank
    check_made_alike(query, provenance, "the features of the training")
    check_made_alike(query, support.provenance, support.source)
    check_size(query.source, query.embedding_size, support.source, support.embedding_size)
    labels = _labels(images, support.class_names)
    fewest, most = int(support.counts.min()), int(support.counts.max())
    shots = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    print(f"{type(trained.learner).__name__:7} {support.num_classes} new classes, {shots}-shot")
    print(f"support {support.source}: {_count(len(support), 'example', 'examples')}")
    print(f"query   {query.source}: {_count(len(query), 'query', 'queries')}")
    for note in _notes(support, query, provenance.get("backbone")):
        print(f"note    {note}")
    adapted = trained.adapt(support)
    with whole_file(typed.out) as part, part.open("w", newline="", encoding="utf-8") as file:
        predicted = _write(file, adapted, support.class_names, images)
    if labels is not None:
        known = labels >= 0
        if others := int((~known).sum()):
            names = [name for name in images.class_names if name not in support.class_names]
            print(
                f"note    {_count(others, 'query', 'queries')} of classes that the support lacks "
                f"({listed(names)}): predicted, not counted"
            )
        if known.any():
            _print_accuracy(int((predicted == labels)[known].sum()), int(known.sum()))
    print(f"results {typed.out}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} classify",
        description="Learn new classes from a few labelled examples, and classify others. Writes a line for "
        "each query: image, predicted class, probability, entropy, and disagreement (the share of drawn "
        "classifiers that predict another class).",
    )
    add = parser.add_argument
    add(
        "--ckpt_path", type=Path, required=True, metavar="PATH",
        help="checkpoint of a method for classes, or a folder that LEOClassifier.save_pretrained wrote",
    )  # fmt: skip
    add(
        "--support", type=Path, required=True, metavar="PATH",
        help="a few labelled examples of each class: a folder with a folder of images for each class, or "
        "embeddings (features.safetensors, npz, npy or pt)",
    )  # fmt: skip
    add(
        "--query", type=Path, required=True, metavar="PATH",
        help="images or embeddings to classify; labels are optional, and give an accuracy",
    )  # fmt: skip
    add(
        "--backbone", type=Path, metavar="FILE",
        help="for images, the backbone.safetensors that made the features of the training (default: the file "
        "beside these features)",
    )  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE", help="CSV file to write")
    return parser


def _write(
    file: TextIO, adapted: "AdaptedClassifier", class_names: Sequence[str], images: "Images"
) -> "np.ndarray":
    """Write the predictions in the order of the queries; their classes."""
    import numpy as np

    labelled, shown = images.classes is not None, class_names if len(class_names) <= MOST else ()
    writer = csv.writer(file)
    writer.writerow(
        ["image", *(["class"] if labelled else []), "predicted", "probability", "entropy", "disagreement",
         *(csv_cell(f"p({name})") for name in shown)]
    )  # fmt: skip
    predicted: list[int] = []
    for row, (answer, entropy, disagreement) in enumerate(_answers(adapted, images.bank)):
        best = int(answer.argmax())
        predicted.append(best)
        writer.writerow(
            [
                csv_cell(images.bank.image_names[row] if images.bank.image_names else row),
                *([] if images.classes is None else [csv_cell(images.class_names[images.classes[row]])]),
                csv_cell(class_names[best]),
                *(f"{number:.6f}" for number in (answer[best].item(), entropy)),
                "" if disagreement is None else f"{disagreement:.6f}",
                *(f"{number:.6f}" for number in (answer.tolist() if shown else ())),
            ]
        )
    return np.array(predicted)


def _answers(
    adapted: "AdaptedClassifier", query: "FeatureBank"
) -> Iterator[tuple["Tensor", float, float | None]]:
    """Probabilities, entropy and disagreement of each query."""
    for answer in adapted.answers(query.embeddings):
        shares: list[Any] = [None] * len(answer.probability)
        if answer.disagreement is not None:
            shares = answer.disagreement.tolist()
        yield from zip(answer.probability, answer.entropy().tolist(), shares, strict=True)


def _labels(images: "Images", class_names: Sequence[str]) -> "np.ndarray | None":
    """For each query the number of its class in the support, or -1; None without labels."""
    import numpy as np

    if images.classes is None:
        return None
    number = {name: i for i, name in enumerate(class_names)}
    return np.array([number.get(name, -1) for name in images.class_names], np.int64)[images.classes]


def _notes(support: "FeatureBank", query: "FeatureBank", trained: str | None) -> Iterator[str]:
    """Reasons to doubt the predictions."""
    for bank in (support, query):
        backbone = bank.provenance.get("backbone")
        if None not in (backbone, trained) and "unknown" not in (backbone, trained) and backbone != trained:
            yield f"{bank.source} was made by {backbone}, and the model was trained on features of {trained}"
    examples = {row.tobytes() for row in support.embeddings.float().numpy()}
    if again := sum(row.tobytes() in examples for row in query.embeddings.float().numpy()):
        yield f"{again:,} of the queries are examples of the support, too: they are easy"


def _print_accuracy(hits: int, count: int) -> None:
    from leo_lightning.common.intervals import wilson_interval

    low, high = (100 * bound for bound in wilson_interval(hits, count))
    share = f"{100 * hits / count:.2f} % of {_count(count, 'query', 'queries')}"
    print(f"\naccuracy {share}, 95% interval {low:.2f} to {high:.2f} %")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
