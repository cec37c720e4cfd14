"""The last lines of `classify`: accuracy, rejected queries, how well unknown classes are told apart."""

from collections.abc import Callable, Sequence

from leo_lightning.commands.classify.predictions import ANSWERED, NONE, UNREADABLE, Prediction


def summarize(
    rows: Sequence[Prediction], class_names: Sequence[str], say: Callable[[str], object], rejecting: bool
) -> None:
    """Print what the labels of the queries tell."""
    from leo_lightning.data.bank import listed

    read = [row for row in rows if row.status != UNREADABLE]
    if unread := len(rows) - len(read):
        say(f"note    {counted(unread, 'query', 'queries')} could not be read")
    rejected = [row for row in read if row.status == NONE]
    if rejecting:
        say(f"rejected {len(rejected):,} of {counted(len(read), 'query', 'queries')}")
    labelled = [row for row in read if row.label is not None]
    known = [row for row in labelled if row.label in class_names]
    unknown = [row for row in labelled if row.label not in class_names]
    if unknown:
        names = sorted({row.label for row in unknown if row.label is not None})
        done = (
            f"rejected {sum(row.status == NONE for row in unknown):,} of them"
            if rejecting
            else "predicted, not counted"
        )
        say(
            f"note    {counted(len(unknown), 'query', 'queries')} of classes that the support lacks "
            f"({listed(names)}): {done}"
        )
        if known:
            _say_auroc(known, unknown, say)
    answered = [row for row in known if row.status == ANSWERED]
    if rejecting and known:
        say(
            f"note    {len(known) - len(answered):,} of "
            f"{counted(len(known), 'known query', 'known queries')} rejected"
        )
    if answered:
        hits = sum(class_names[row.best] == row.label for row in answered)
        _say_accuracy(hits, len(answered), rejecting, say)


def _say_auroc(
    known: Sequence[Prediction], unknown: Sequence[Prediction], say: Callable[[str], object]
) -> None:
    from sklearn.metrics import roc_auc_score

    truth = [0] * len(known) + [1] * len(unknown)
    distance, entropy = (
        roc_auc_score(truth, [getattr(row, score) for row in (*known, *unknown)])
        for score in ("distance", "entropy")
    )
    say(f"note    distance tells these apart with an AUROC of {distance:.3f}, entropy with {entropy:.3f}")


def _say_accuracy(hits: int, count: int, rejecting: bool, say: Callable[[str], object]) -> None:
    from leo_lightning.common.intervals import wilson_interval

    low, high = (100 * bound for bound in wilson_interval(hits, count))
    answered = "answered " if rejecting else ""
    share = f"{100 * hits / count:.2f} % of {counted(count, f'{answered}query', f'{answered}queries')}"
    say(f"\naccuracy {share}, 95% interval {low:.2f} to {high:.2f} %")


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many}"
