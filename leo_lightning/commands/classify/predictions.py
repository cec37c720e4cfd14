"""Predictions of `classify`: a line for each query in a CSV file, and the first ones on the terminal."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from leo_lightning.common.errors import without_controls
from leo_lightning.common.spreadsheet import csv_cell

if TYPE_CHECKING:
    from rich.console import Console

    from leo_lightning.data.new_classes import Images
    from leo_lightning.inference.adapted_classifier import AdaptedClassifier

MOST = 20
"""Classes whose probabilities get a column each."""
SHOWN = 10
"""Predictions that are printed."""
ANSWERED, NONE, UNREADABLE = "answered", "none of these", "unreadable"


class Prediction(NamedTuple):
    """The answer to one query."""

    image: str | int
    label: str | None
    """Class of the query, if it is known."""
    status: str
    best: int = -1
    """Number of the most probable class; -1 if the image cannot be read."""
    probability: tuple[float, ...] = ()
    """Probability of each class of the support; empty if the image cannot be read."""
    entropy: float = 0.0
    distance: float = 0.0
    disagreement: float | None = None


def predictions(
    adapted: "AdaptedClassifier",
    images: "Images",
    rejected: Callable[[float, float], bool],
    disagreement: bool,
) -> Iterator[Prediction]:
    """Classify the queries, in their order; those that cannot be read are in their places.

    Args:
        adapted: the classifier.
        images: the queries.
        rejected: whether a query is of none of the classes, by its distance and its entropy.
        disagreement: whether to compare with drawn classifiers.
    """
    rows = _answers(adapted, images, rejected, disagreement)
    for place in range(len(images.bank) + len(images.unread)):
        if place in images.unread:
            name = images.unread[place][0]
            yield Prediction(name, None if images.classes is None else name.partition("/")[0], UNREADABLE)
        else:
            yield next(rows)


def _answers(
    adapted: "AdaptedClassifier",
    images: "Images",
    rejected: Callable[[float, float], bool],
    disagreement: bool,
) -> Iterator[Prediction]:
    names, first = images.bank.image_names, 0
    labels = (
        None if images.classes is None else [images.class_names[int(number)] for number in images.classes]
    )
    for answer in adapted.answers(images.bank.embeddings, disagreement):
        count = len(answer.probability)
        distances = adapted.distance(images.bank.embeddings[first : first + count]).tolist()
        shares = [None] * count if answer.disagreement is None else answer.disagreement.tolist()
        for row, probability, entropy, distance, share in zip(
            range(first, first + count), answer.probability.tolist(), answer.entropy().tolist(), distances,
            shares, strict=True,
        ):  # fmt: skip
            yield Prediction(
                row if names is None else names[row],
                None if labels is None else labels[int(row)],
                NONE if rejected(distance, entropy) else ANSWERED,
                probability.index(max(probability)),
                tuple(probability),
                entropy,
                distance,
                share,
            )
        first += count


def write(
    file: TextIO, rows: Iterable[Prediction], class_names: Sequence[str], labelled: bool, disagreement: bool
) -> Iterator[Prediction]:
    """Write a line for each prediction, and pass it on."""
    shown = class_names if len(class_names) <= MOST else ()
    writer = csv.writer(file)
    writer.writerow(
        ["image", *(["class"] if labelled else []), "predicted", "status", "probability", "entropy",
         "distance", *(["disagreement"] if disagreement else []), *(csv_cell(f"p({name})") for name in shown)]
    )  # fmt: skip
    for row in rows:
        numbers: list[float | None] = [None] * (3 + disagreement + len(shown))
        if row.probability:
            numbers = [row.probability[row.best], row.entropy, row.distance]
            numbers += [row.disagreement] * disagreement + list(row.probability if shown else ())
        writer.writerow(
            [
                csv_cell(row.image),
                *([csv_cell(row.label)] if labelled else []),
                csv_cell(class_names[row.best]) if row.status == ANSWERED else "",
                row.status,
                *("" if number is None else f"{number:.6f}" for number in numbers),
            ]
        )
        yield row


def show(console: "Console", rows: Sequence[Prediction], total: int, class_names: Sequence[str]) -> None:
    """Print the answer to a single query in a sentence, or the first answers as a table."""
    from rich.table import Table
    from rich.text import Text

    def named(row: Prediction) -> str:
        return without_controls(class_names[row.best]) if row.status == ANSWERED else row.status

    console.print()
    if total == 1:
        (row,) = rows
        line = f"{row.image}: {named(row)}"
        if row.probability:
            ranked = sorted(zip(row.probability, class_names, strict=True), reverse=True)[:3]
            line += f" ({', '.join(f'{without_controls(name)} {100 * p:.0f} %' for p, name in ranked)})"
        console.print(Text(without_controls(line)), soft_wrap=True)
        return
    labelled = any(row.label is not None for row in rows)
    table = Table("image", *(["class"] if labelled else []), "answer", "probability", "distance")
    for row in rows:
        numbers = [f"{row.probability[row.best]:.2f}", f"{row.distance:.2f}"] if row.probability else ["", ""]
        label = [Text(without_controls(row.label or ""))] if labelled else []
        table.add_row(Text(without_controls(str(row.image))), *label, Text(named(row)), *numbers)
    console.print(table)
    if total > len(rows):
        console.print(f"and {total - len(rows):,} more")
