"""The division of classes into train, val and test."""

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.data.division import Division, divide

COUNTS = {f"c{number:02d}": number + 1 for number in range(20)}
GROUPS = {f"{group}/{letter}": 20 for group in ("Greek", "Latin", "Tifinagh") for letter in "abcd"}


def divided(counts: dict[str, int] = COUNTS, val: str = "20%", test: str = "20%", seed: int = 0) -> Division:
    return divide(counts, val, test, seed, 1, "photos")


@pytest.mark.parametrize(
    ("val", "test", "sizes"),
    [
        ("20%", "0.25", (11, 4, 5)),
        ("5", "1", (14, 5, 1)),
        ("0", "10%", (18, 0, 2)),
        ("0%", "0.0", (20, 0, 0)),
        ("1%", ".01", (18, 1, 1)),
        ("12.5%", "2", (16, 2, 2)),
        ("9", "9", (2, 9, 9)),
    ],
)
def test_sizes(val: str, test: str, sizes: tuple[int, ...]):
    """Catches a share taken for a number, a class in no split or in two, and an asked split without any."""
    splits = divided(val=val, test=test).splits
    assert tuple(len(splits.get(split, [])) for split in ("train", "val", "test")) == sizes
    assert sorted(name for names in splits.values() for name in names) == sorted(COUNTS)
    assert list(splits) == [s for s, size in zip(("train", "val", "test"), sizes, strict=True) if size]


def test_seed_and_names_decide():
    """Catches a division that depends on the order of files, and one that changes with a release."""
    first = divided()
    assert divided(dict(reversed(COUNTS.items()))) == first
    others = {tuple(divided(seed=seed).splits["test"]) for seed in range(10)}
    assert len(others) == 10
    # the four of 0/c00 to 0/c19 with the smallest sha256, by coreutils' sha256sum
    assert first.splits["test"] == ["c15", "c16", "c18", "c19"]


def test_small_classes_are_left_out():
    """Catches a share of the classes that are left out, too, and a class that vanishes without its name."""
    division = divide(COUNTS, "20%", "20%", 0, 11, "photos")
    assert division.small == [f"c{number:02d}" for number in range(10)]
    assert [len(names) for names in division.splits.values()] == [6, 2, 2]


def test_names_and_groups():
    """Catches named classes that are drawn again, and a group taken for a class."""
    splits = divided(GROUPS, val="Greek", test="Latin/a, Tifinagh/b").splits
    assert splits["val"] == ["Greek/a", "Greek/b", "Greek/c", "Greek/d"]
    assert splits["test"] == ["Latin/a", "Tifinagh/b"]
    splits = divided(GROUPS, val="2", test="Greek").splits
    assert not {*splits["val"]} & {*splits["test"]}
    assert [len(names) for names in splits.values()] == [6, 2, 4]
    assert divided({"a,b": 1, "c": 1, "d": 1}, val="a,b", test="0").splits["val"] == ["a,b"]


@pytest.mark.parametrize(
    ("val", "test", "line"),
    [
        (
            "50%",
            "50%",
            "photos: 12 classes leave 0 to train on, which takes at least 2; add classes, or lower",
        ),
        ("9", "2", "photos: 12 classes leave 1 to train on"),
        ("100", "1", "photos: 12 classes leave 0 to train on"),
        ("Greek", "Greek/a", "--val and --test: class 'Greek/a' is in both; splits may not share classes"),
        (
            "20x",
            "0",
            "--val '20x': is neither a share (20% or 0.2) nor a number of classes, and photos has no",
        ),
        ("-1", "0", "--val '-1': is neither"),
        ("1.5", "0", "--val '1.5': is neither"),
        ("", "0", "--val '': is neither"),
        ("Greek,", "0", "there are 'Greek', 'Latin', 'Tifinagh'"),
    ],
)
def test_refusals(val: str, test: str, line: str):
    """Catches a split that silently gets fewer classes than it was asked to have, or nothing to train on."""
    with pytest.raises(InputError) as caught:
        divided(GROUPS, val, test)
    assert line in str(caught.value)


def test_too_few_classes_because_of_their_sizes():
    """Catches a refusal that hides the flag which made the classes too few."""
    with pytest.raises(InputError, match=r"2 classes with 19 images or more leave 0 .*, or --min-images"):
        divide(COUNTS, "1", "1", 0, 19, "photos")
