"""Flags of `classify` and `export`: the support, how its images become embeddings, and the method.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leo_lightning.common.errors import InputError

if TYPE_CHECKING:
    from leo_lightning.data.bank import FeatureBank
    from leo_lightning.inference.held_out import HeldOut
    from leo_lightning.inference.new_images import NewImages
    from leo_lightning.inference.trained_model import TrainedModel
    from leo_lightning.inference.ways import Way
    from leo_lightning.learners.learner import Learner

AUTO, TRAINED = "auto", "trained"
METHODS = (AUTO, TRAINED, "logistic-regression", "cl2n", "nearest-centroid", "linear-svm")
TRANSDUCTIVE = ("bd-cspn", "laplacian-shot", "tim", "label-propagation", "pt-map")
SLOW, LARGE = "linear-svm", 200_000
"""A method that `auto` leaves out where classes × examples are more than this."""
FEW = 5
"""Examples of each class below which an estimate is well below the accuracy to expect:
docs/new-classes.md."""


class NewClasses(NamedTuple):
    """The support of a command, and what to classify it with."""

    support: "FeatureBank"
    trained: "TrainedModel | None"
    reader: "NewImages"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add(
        "--support", type=Path, required=True, metavar="PATH",
        help="a few labelled examples of each class: a folder with a folder of images for each class, or "
        "a file of embeddings (docs/features.md)",
    )  # fmt: skip
    add(
        "--ckpt_path", type=Path, metavar="PATH",
        help="checkpoint of a method for classes, or a folder that LEOClassifier.save_pretrained wrote; "
        "without it, a method that needs no training answers",
    )  # fmt: skip
    add(
        "--method", choices=METHODS, metavar="NAME",
        help=f"{', '.join(METHODS[1:])}; auto takes the best one by examples of the support that are held "
        "out (default: trained with --ckpt_path, else auto)",
    )  # fmt: skip
    add(
        "--weights", metavar="FILE|pretrained",
        help="for images, the weights of the network that embeds them: backbone.safetensors, a checkpoint of "
        "pretrain, a state dict, or `pretrained` (default: the file beside the features of the training)",
    )  # fmt: skip
    add(
        "--backbone", metavar="NAME",
        help="name of that network, if its weights do not say it, such as resnet18 or another model of timm",
    )  # fmt: skip
    add(
        "--on-error", choices=("refuse", "skip"), default="refuse",
        help="for images that cannot be read: end and list them, or leave them out",
    )  # fmt: skip
    add(
        "--cache", metavar="DIR",
        help="folder in which embeddings of images are kept for the next call; none: nowhere (default: "
        "leo-lightning in your folder of caches)",
    )  # fmt: skip


def read_support(
    typed: argparse.Namespace, report: Callable[[str], None], query: Path | None = None
) -> NewClasses:
    """Load the trained model, if there is one, and read the support.

    Args:
        typed: the flags.
        report: called with each note.
        query: the queries that will be read next: a mistake in their place is told before the work begins.

    Raises:
        InputError: says which of them is at fault.
    """
    from leo_lightning.data.new_classes import support_of
    from leo_lightning.inference.embedding_cache import default_folder
    from leo_lightning.inference.new_images import NewImages, backbone_beside
    from leo_lightning.inference.trained_model import TrainedModel

    if typed.method == TRAINED and typed.ckpt_path is None:
        raise InputError("--method trained needs --ckpt_path PATH, the trained model")
    if typed.backbone is not None and Path(typed.backbone).is_file():
        raise InputError(f"--backbone {typed.backbone}: is a file; name it with --weights")
    path: Path | None = typed.ckpt_path
    trained = None if path is None else TrainedModel.load(path)
    weights = typed.weights
    if weights is None and path is not None and (beside := backbone_beside(path)) is not None:
        weights = str(beside)
    reader = NewImages(
        weights,
        typed.backbone,
        {} if trained is None else trained.record.provenance,
        typed.on_error,
        {None: default_folder(), "none": None}.get(typed.cache, Path(typed.cache or "")),
        report,
    )
    reader.check(typed.support, True)
    if query is not None:
        reader.check(query, False)
    return NewClasses(support_of(reader.read(typed.support, True), report), trained, reader)


def chosen_way(name: str | None, new: NewClasses, say: Callable[[str], object]) -> "Way":
    """Return the method that is named or, for `auto`, the best one; see `_best`.

    Args:
        name: as typed.
        new: the support and the trained model.
        say: prints a line.
    """
    from leo_lightning.inference.ways import ways

    every = ways(new.trained)
    name = name or (AUTO if new.trained is None else TRAINED)
    way = _best(every, new, say) if name == AUTO else every[name]
    if way.name == "linear-svm":
        say("note    a linear SVM has no probabilities; the numbers in their place only rank the classes")
    return way


def transductive_notes(learner: "Learner") -> Iterator[str]:
    """Lines about a learner that sees all queries together."""
    from leo_lightning.learners.parts.transductive import TransductiveLearner

    if isinstance(learner, TransductiveLearner):
        yield "transductive: each answer depends on the other queries; fewer or other ones may change it"
        if learner.assumes:
            yield f"it assumes that {learner.assumes}"


def _best(every: "dict[str, Way]", new: NewClasses, say: Callable[[str], object]) -> "Way":
    """Return the method that answers most held-out examples, and print what each of them answers."""
    from leo_lightning.common.intervals import wilson_interval
    from leo_lightning.data.bank import listed
    from leo_lightning.inference.held_out import can_hold_out, held_out

    first = next(iter(every.values()))
    if not can_hold_out(new.support):
        say(f"method  {first.title}; with one example of each class there is nothing to choose by (--method)")
        return first
    best: tuple[Way, HeldOut] | None = None
    say("\nheld-out examples that a method answers correctly after learning from the others:")
    for way in every.values():
        if way.name == SLOW and len(new.support) * new.support.num_classes > LARGE:
            say(f"  {way.title:20} left out: takes minutes with so many examples (--method {SLOW})")
            continue
        try:
            answers = held_out(new.support, way.fit)
        except InputError as error:
            say(f"  {way.title:20} {error}")
            continue
        hits, count = int(answers.right.sum()), len(answers.right)
        low, high = (100 * bound for bound in wilson_interval(hits, count))
        estimate = f"{100 * hits / count:6.2f} % of {count:,}, 95% interval {low:.2f} to {high:.2f} %"
        say(f"  {way.title:20} {estimate}")
        if best is None or answers.beats(best[1]):
            best = way, answers
    chosen = first if best is None else best[0]
    say(f"method  {chosen.title}")
    alone = int((new.support.counts == 1).sum())
    if alone:
        have = "1 class has" if alone == 1 else f"{alone:,} classes have"
        say(f"note    {have} one example only, which cannot be held out: the numbers leave it out")
    elif new.support.counts.min() < FEW:
        say(
            f"note    with fewer than {FEW} examples of a class, these numbers are usually too low: each "
            "method had one less to learn from"
        )
    if new.trained is not None and (seen := set(new.trained.record.classes) & set(new.support.class_names)):
        names = [name for name in sorted(seen) if not name.isdecimal()]
        if names:
            say(
                f"note    {every[TRAINED].title} was trained on classes called {listed(names)}: for new "
                "classes its number would be lower"
            )
    return chosen
