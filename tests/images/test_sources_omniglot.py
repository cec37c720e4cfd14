"""Omniglot's archives: divided by alphabet, copied as they are, and not believed."""

import re
import struct
import zipfile
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
    """Catches alphabets in the order of the archive, evaluation alphabets that train, and dross as images."""
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


def test_drawings_stay_as_they_are(tmp_path: Path):
    """Catches drawings that are mixed up, or decoded and encoded again."""
    read(sources.omniglot(tmp_path / "src"), tmp_path / "out")
    drawings = sources.drawings("images_background", sources.BACKGROUND)
    for member, png in drawings.items():
        _, alphabet, character, name = member.split("/")
        split = "val" if alphabet in sources.HELD_OUT else "train"
        assert (tmp_path / "out" / split / f"{alphabet}__{character}" / name).read_bytes() == png


GOOD = sources.drawings("images_background", sources.BACKGROUND)
BAD = {
    "outside": (GOOD | {"../../evil.png": b"x"}, r"holds '\.\./\.\./evil\.png', which would lie outside"),
    "absolute": (GOOD | {"/evil.png": b"x"}, "holds '/evil.png', which would lie outside"),
    "a drive": (GOOD | {"C:evil.png": b"x"}, "holds 'C:evil.png', which would lie outside"),
    "backslashes": (GOOD | {"a\\..\\..\\evil.png": b"x"}, "which would lie outside"),
    "an alphabet above": (GOOD | {"a/../character01/x.png": b"x"}, "which would lie outside"),
    "a bomb": (GOOD | {"a/Greek/character01/x.png": bytes(2**25)}, "refused to unpack 33,554,432 bytes from"),
    "no drawings": ({"a/Greek/character01.png": b"x"}, "holds no drawings"),
    "no image": (
        GOOD | {"images_background/Greek/character01/x.png": b"<html>"},
        "character01/x.png: is no whole PNG",
    ),
    "half an image": (
        GOOD | {"images_background/Greek/character01/x.png": sources.png(0)[:-4]},
        "is no whole PNG file",
    ),
    "twice": (
        GOOD | {f"again/{name.partition('/')[2]}": png for name, png in GOOD.items()},
        "is there twice",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_archive_is_refused(name: str, tmp_path: Path):
    """Catches a file written where the archive says, memory filled, and anything but images as images."""
    src = sources.omniglot(tmp_path / "src")
    members, message = BAD[name]
    sources.write_zip(src / "images_background.zip", members)
    before = sources.tree(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(src) in str(caught.value) or name == "twice"
    assert sources.tree(tmp_path) == before
    assert not Path("/evil.png").exists()


def test_many_drawings_of_much_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a bomb in small parts."""
    monkeypatch.setattr(omniglot, "_MAX_UNPACKED", 2**20)
    src = sources.omniglot(tmp_path / "src")
    members = {f"a/Greek/character01/{number}.png": bytes(2**16) for number in range(17)}
    sources.write_zip(src / "images_background.zip", members)
    with pytest.raises(InputError, match="refused to unpack 1,114,112 bytes"):
        read(src, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "flipped", "claims less"])
def test_damaged_archive_is_one_line(damage: str, tmp_path: Path):
    """Catches what zipfile and zlib raise, and a size that is believed though more comes."""
    src = sources.omniglot(tmp_path / "src")
    path = src / "images_background.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[-1]
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[info.header_offset + 120] ^= 0xFF
    else:
        entry = data.rindex(b"PK\x01\x02")
        data[entry + 24 : entry + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(f"{path}: is a damaged archive (")) as caught:
        read(src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
