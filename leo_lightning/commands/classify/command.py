"""`classify`: learn new classes from a few labelled examples, and classify others."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from leo_lightning.commands.classify.predictions import SHOWN, predictions, show, write
from leo_lightning.commands.classify.summary import counted, summarize
from leo_lightning.commands.new_classes import (
    TRAINED,
    TRANSDUCTIVE,
    NewClasses,
    add_flags,
    chosen_way,
    read_support,
    transductive_notes,
)
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError
from leo_lightning.common.program import called

if TYPE_CHECKING:
    from leo_lightning.data.bank import FeatureBank
    from leo_lightning.inference.ways import Way

PIPE = "-"
ENOUGH = 3
"""Held-out images beyond the threshold of --reject below which it is a matter of luck."""


def main(arguments: Sequence[str]) -> None:
    """Classify the queries, print the first answers, and write a line for each."""
    typed = _parser().parse_args(arguments)
    from rich.console import Console

    from leo_lightning.common.files import check_place
    from leo_lightning.common.threads import one_thread

    if typed.out not in (None, PIPE):
        check_place(Path(typed.out))
    if typed.calibrate is not None and typed.reject is None:
        raise InputError("--calibrate chooses the threshold of --reject; add --reject 5%")
    if typed.transductive is not None and (typed.method is not None or typed.reject is not None):
        other = "--method" if typed.method is not None else "--reject"
        raise InputError(f"--transductive cannot be combined with {other}; leave one of them out")
    said = sys.stderr if typed.out == PIPE else sys.stdout
    say = partial(print, file=said)

    def note(line: str) -> None:
        say(f"note    {line}")

    new = read_support(typed, note, typed.query)
    support, trained = new.support, new.trained
    images = new.reader.read(typed.query, False)
    query = images.bank
    _check_alike(query, new)
    fewest, most = int(support.counts.min()), int(support.counts.max())
    shots = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    say(f"classes {support.num_classes} new classes, {shots}-shot")
    say(f"support {support.source}: {counted(len(support), 'example', 'examples')}")
    say(f"query   {query.source}: {counted(len(query) + len(images.unread), 'query', 'queries')}")
    for line in _notes(
        support, query, None if trained is None else trained.record.provenance.get("backbone")
    ):
        note(line)
    with one_thread():
        if typed.transductive is None:
            way = chosen_way(typed.method, new, say)
        else:
            from leo_lightning.inference.ways import transductive_way

            way = transductive_way(typed.transductive)
        rejected = _rejection(typed, new, way, note)
        adapted = way.fit(support)
        for line in transductive_notes(adapted.learner):
            note(line)
        if typed.disagreement and not adapted.sampled:
            raise InputError(
                f"--disagreement: {way.title} draws no classifiers that could disagree; leave it out"
            )
        rows = predictions(adapted, images, rejected, typed.disagreement)
        with _opened(typed.out) as file:
            if file is not None:
                labelled = images.classes is not None
                rows = write(file, rows, support.class_names, labelled, typed.disagreement)
            # the probabilities of many queries and classes would fill the memory
            seen = [row if place < SHOWN else row._replace(probability=()) for place, row in enumerate(rows)]
    if typed.out != PIPE:
        show(
            Console(width=None if sys.stdout.isatty() else 120), seen[:SHOWN], len(seen), support.class_names
        )
    summarize(seen, support.class_names, say, typed.reject is not None)
    if typed.out not in (None, PIPE):
        say(f"results {typed.out}")
    elif typed.out is None and len(seen) > SHOWN:
        say("all predictions: --out FILE, or --out - for a pipe")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} classify",
        description="Learn new classes from a few labelled examples, and classify others. Prints the first "
        "answers; --out writes a line for each query: image, predicted class, status, probability, "
        "entropy, distance to the nearest example.",
    )
    add_flags(parser)
    add = parser.add_argument
    add(
        "--query", type=Path, required=True, metavar="PATH",
        help="images or embeddings to classify; labels are optional, and give an accuracy",
    )  # fmt: skip
    add(
        "--transductive", choices=TRANSDUCTIVE, metavar="NAME",
        help=f"answer all queries together, in place of --method, by {', '.join(TRANSDUCTIVE)}: fair if all "
        "queries are there at once and come from these classes, about equally many from each",
    )  # fmt: skip
    add("--out", metavar="FILE", help="CSV file to write; - writes to the standard output, for a pipe")
    add(
        "--reject", type=_share, metavar="5%",
        help="answer `none of these` to queries that are unlike all examples; the share of queries of known "
        "classes that this may lose",
    )  # fmt: skip
    add(
        "--reject-by", choices=("distance", "entropy"),
        help="what tells them apart: distance to the nearest example, or entropy of the probabilities "
        "(default: distance for a trained model, else entropy)",
    )  # fmt: skip
    add(
        "--calibrate", type=Path, metavar="PATH",
        help="labelled images or embeddings of still other classes, such as those of a validation, that "
        "set the threshold of --reject in tasks drawn from them (default: examples of the support that are "
        "held out)",
    )  # fmt: skip
    add(
        "--disagreement", action="store_true",
        help="add the share of 20 classifiers drawn by LEO that name another class; costs several times "
        "the fitting",
    )  # fmt: skip
    return parser


def _share(text: str) -> float:
    """A share, typed as 5% or 0.05."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0% and 100%, such as 5%")
    return share


def _rejection(
    typed: argparse.Namespace, new: NewClasses, way: "Way", note: Callable[[str], None]
) -> Callable[[float, float], bool]:
    """Return the function from a query's distance and entropy to whether it is rejected."""
    if typed.reject is None:
        return lambda distance, entropy: False
    from leo_lightning.data.new_classes import support_of
    from leo_lightning.inference.held_out import can_hold_out, held_out, other_tasks
    from leo_lightning.inference.rejection import threshold

    support = new.support
    # the probabilities of a trained model are nearly 0 or 1 for other classes, too: docs/new-classes.md
    by = typed.reject_by or ("distance" if way.name == TRAINED else "entropy")
    if typed.calibrate is not None:
        features = support_of(new.reader.read(typed.calibrate, True), note)
        _check_alike(features, new)
        shot = round(float(support.counts.mean()))
        answers, source = other_tasks(features, way.fit, support.num_classes, shot), features.source
    elif can_hold_out(support):
        answers, source = held_out(support, way.fit), support.source
    else:
        raise InputError(
            f"--reject: {support.source} has one example of each class, so none can be held out; name "
            "labelled images or features of other classes with --calibrate"
        )
    limit = threshold(getattr(answers, by), typed.reject, source)
    count = len(answers.label)
    drawn = "held-out examples" if typed.calibrate is None else "queries of tasks"
    note(f"none of these: {by} above {limit:.6f}, which {count:,} {drawn} of {source} set")
    if count * typed.reject < ENOUGH:
        note(
            "with so few, the farthest ones set it: most queries of other classes will pass; a larger "
            f"share than {100 * typed.reject:g}% rejects more"
        )
    return lambda distance, entropy: (distance if by == "distance" else entropy) > limit


@contextmanager
def _opened(out: str | None) -> Iterator[TextIO | None]:
    """The file to write, which appears complete or not at all; None without one."""
    from leo_lightning.common.files import whole_file

    if out is None:
        yield None
    elif out == PIPE:
        yield sys.stdout
    else:
        with whole_file(Path(out)) as part, part.open("w", newline="", encoding="utf-8") as file:
            yield file


def _check_alike(features: "FeatureBank", new: NewClasses) -> None:
    """Refuse embeddings that were made otherwise than the support's, or the training's."""
    from leo_lightning.data.new_classes import check_made_alike, check_size

    support = new.support
    if new.trained is not None:
        check_made_alike(features, new.trained.record.provenance, "the features of the training")
    check_made_alike(features, support.provenance, support.source)
    check_size(features.source, features.embedding_size, support.source, support.embedding_size)


def _notes(support: "FeatureBank", query: "FeatureBank", trained: str | None) -> Iterator[str]:
    """Reasons to doubt the predictions."""
    for bank in (support, query):
        backbone = bank.provenance.get("backbone")
        if None not in (backbone, trained) and "unknown" not in (backbone, trained) and backbone != trained:
            yield f"{bank.source} was made by {backbone}, and the model was trained on features of {trained}"
    examples = {row.tobytes() for row in support.embeddings.float().numpy()}
    if again := sum(row.tobytes() in examples for row in query.embeddings.float().numpy()):
        yield f"{again:,} of the queries are examples of the support, too: they are easy"
