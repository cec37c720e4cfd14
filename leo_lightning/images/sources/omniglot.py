"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people (105 × 105, black and white).

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 2015. A class is a character, `Alphabet/character01`.

The split is by alphabet: of the 30 background alphabets the last 5 in alphabetical order validate and the
others train, and the 20 evaluation alphabets test. It is not the split of Vinyals et al. (NeurIPS 2016), who
divide characters at random and turn them for more classes.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torchvision.datasets import Omniglot

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.data.importers.sources import ZIP_ERRORS, check_inflation
from leo_lightning.images.sources.picture import Picture, Pictures, check_member, check_png
from leo_lightning.images.sources.published import File

HOME = Omniglot.download_url_prefix
_VALIDATE = 5  # alphabets
_DRAWING = re.compile(r"(?!__MACOSX/)[^/]+/([^/]+)/(character\d+)/([^/.][^/]*)\.png")
_MAX_UNPACKED = 2**28  # bytes; the drawings of the larger archive have a twentieth of that


def files() -> list[File]:
    """Return the archives: background and evaluation."""
    return [
        File(f"{name}.zip", Omniglot.zips_md5[name]) for name in ("images_background", "images_evaluation")
    ]


def read(paths: Sequence[Path]) -> Pictures:
    """Read the drawings of the background and evaluation archives; their PNG files stay as they are.

    Raises:
        InputError: an archive is damaged, holds no drawings, or was made to do harm.
    """
    background, evaluation = (_drawings(path) for path in paths)
    last = sorted({alphabet for alphabet, *_ in background.values()})[-_VALIDATE:]

    def pictures() -> Iterator[Picture]:
        for path, drawings in zip(paths, (background, evaluation), strict=True):
            for member, png in _unpacked(path, drawings):
                alphabet, character, name = drawings[member]
                held_out = "val" if alphabet in last else "train"
                split = held_out if drawings is background else "test"
                yield Picture(split, f"{alphabet}/{character}", name, png)

    return Pictures(len(background) + len(evaluation), pictures())


def _drawings(path: Path) -> dict[str, tuple[str, str, str]]:
    """Return the drawings in an archive: alphabet, character and name, by member."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except ZIP_ERRORS as error:
        raise _damaged(path, error) from None
    for member in members:
        check_member(member.filename, str(path))
        check_inflation(member, path)
    unpacked = sum(member.file_size for member in members)
    if unpacked > _MAX_UNPACKED:
        raise InputError(f"{path}: refused to unpack {unpacked:,} bytes; no drawings are as large as that")
    matches = {member.filename: _DRAWING.fullmatch(member.filename) for member in members}
    drawings = {
        member: (match[1], match[2], match[3])
        for member, match in sorted(matches.items())
        if match is not None
    }
    if not drawings:
        raise InputError(f"{path}: holds no drawings (FOLDER/ALPHABET/characterNN/NAME.png)")
    return drawings


def _unpacked(path: Path, members: dict[str, tuple[str, str, str]]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in members:
                png = archive.read(member)
                check_png(png, f"{path}:{printable(member)}")
                yield member, png
    except InputError:
        raise
    except ZIP_ERRORS as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is a damaged archive ({one_line(error)}); download it again")
