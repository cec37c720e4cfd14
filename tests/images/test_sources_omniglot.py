"""Omniglot's archives: divided by alphabet, copied unchanged, and not trusted."""

from pathlib import Path

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.sources import omniglot
from leo_lightning.images.sources.tree import write_tree
from tests.images import sources


def read(folder: Path, dst: Path) -> None:
    paths = [folder / "images_background.zip", folder / "images_evaluation.zip"]
    total, pictures = omniglot.read(paths)
    counts = write_tree(pictures, dst)
    assert total == sum(sum(of_split.values()) for of_split in counts.values())


def test_last_background_alphabets_validate(tmp_path: Path):
    """Catches alphabets in the archive's order, evaluation alphabets that train, and clutter as images."""
    read(sources.omniglot(tmp_path / "src"), tmp_path / "out")
    expected = {
        "test": sources.EVALUATION,
        "train": sources.BACKGROUND[:-5],
        "val": sources.BACKGROUND[-5:],
    }
    assert sources.classes(tmp_path / "out") == {
        split: {
            f"{alphabet}__character{number:02d}": sources.DRAWINGS
            for alphabet in alphabets
            for number in range(1, sources.CHARACTERS + 1)
        }
        for split, alphabets in expected.items()
    }


def test_drawings_stay_unchanged(tmp_path: Path):
    """Catches drawings that are mixed up, or encoded again."""
    read(sources.omniglot(tmp_path / "src"), tmp_path / "out")
    drawings = sources.drawings("images_background", sources.BACKGROUND)
    for member, png in drawings.items():
        _, alphabet, character, name = member.split("/")
        split = "val" if alphabet in sources.HELD_OUT else "train"
        assert (tmp_path / "out" / split / f"{alphabet}__{character}" / name).read_bytes() == png


GOOD = sources.drawings("images_background", sources.BACKGROUND)


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/evil.png", "C:evil.png", "a\\..\\..\\evil.png", "images/Greek/evil.png"]
)
def test_other_files_are_not_extracted(name: str, tmp_path: Path):
    """Catches a file that is written where the archive says."""
    src = sources.omniglot(tmp_path / "a" / "b" / "src")
    sources.write_zip(src / "images_background.zip", GOOD | {name: b"x"})
    read(src, tmp_path / "a" / "b" / "out")
    assert not any("evil" in path for path in sources.tree(tmp_path))
    assert not Path("/evil.png").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a/../character01/x.png": b"x"}, "'../character01' cannot be the name of a folder"),
        ({f"again/{name.partition('/')[2]}": png for name, png in GOOD.items()}, "comes twice"),
    ],
    ids=["an alphabet above", "twice"],
)
def test_bad_drawings_are_refused(members: dict[str, bytes], message: str, tmp_path: Path):
    """Catches a class outside of the tree, and a drawing that replaces another."""
    src = sources.omniglot(tmp_path / "src")
    sources.write_zip(src / "images_background.zip", GOOD | members)
    before = sources.tree(tmp_path)
    with pytest.raises(InputError, match=message):
        read(src, tmp_path / "out")
    assert sources.tree(tmp_path) == before
