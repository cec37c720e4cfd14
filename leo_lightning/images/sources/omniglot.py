"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people (105 × 105, black and white).

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 2015. A class is a character, `Alphabet/character01`.

The split is by alphabet: of the 30 background alphabets the last 5 in alphabetical order validate and the
others train; the 20 evaluation alphabets test. Vinyals et al. (NeurIPS 2016) instead divide characters at
random and rotate them for more classes.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torchvision.datasets import Omniglot

from leo_lightning.images.sources.picture import Picture, Pictures
from leo_lightning.images.sources.published import File

HOME = Omniglot.download_url_prefix
FILES = tuple(
    File(f"{name}.zip", Omniglot.zips_md5[name]) for name in ("images_background", "images_evaluation")
)
_VALIDATION_ALPHABETS = 5
_DRAWING = re.compile(r"(?!__MACOSX/)[^/]+/[^/]+/character\d+/[^/.][^/]*\.png")


def read(paths: Sequence[Path]) -> Pictures:
    """Read the drawings of the background and evaluation archives; their PNG files stay unchanged.

    `published` compares the archives' checksums before they are opened here.
    """
    background, evaluation = (_drawings(path) for path in paths)
    validation = sorted({member.split("/")[1] for member in background})[-_VALIDATION_ALPHABETS:]

    def pictures() -> Iterator[Picture]:
        for path, members in zip(paths, (background, evaluation), strict=True):
            with zipfile.ZipFile(path) as archive:
                for member in members:
                    _, alphabet, character, file = member.split("/")
                    split = "test" if members is evaluation else "val" if alphabet in validation else "train"
                    name = file.removesuffix(".png")
                    yield Picture(split, f"{alphabet}/{character}", name, archive.read(member))

    return Pictures(len(background) + len(evaluation), pictures())


def _drawings(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(filter(_DRAWING.fullmatch, archive.namelist()))
