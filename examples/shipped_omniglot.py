"""Make the real data inside the package again: python -m examples.shipped_omniglot [DRAWINGS.npz].

Pre-trains the backbone on the drawings, turned by right angles too, extracts the features, and writes
leo_lightning/data/omniglot and examples/drawings. One thread and fixed seeds: the same machine and versions
give the same bytes. Finished steps in the folder --work are kept.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile, ZipInfo

import numpy as np

from leo_lightning.data.drawings import DRAWINGS
from leo_lightning.data.roots import OMNIGLOT, SHIPPED
from leo_lightning.data.splits import SPLITS, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.sources.picture import png_of

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = ["--val", "Early_Aramaic,Tagalog", "--test", "Latin,Greek"]
LAYER = ["--layer", "2", "--pooling", "flatten", "--dtype", "float16"]
EXAMPLES = {
    "Greek": {"alpha": 1, "gamma": 3, "lambda": 11, "psi": 23, "omega": 24},
    "Latin": {"a": 1, "e": 5, "g": 7, "k": 11, "r": 18},
}
"""Characters of the test alphabets in examples/drawings, by their numbers."""
SUPPORT, QUERY = 2, 3
"""Drawings of each of them: the first are support, the next are queries."""


def main() -> None:
    """Make everything, step by step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("drawings", nargs="?", type=Path, default=SHIPPED[OMNIGLOT] / DRAWINGS)
    parser.add_argument("--work", type=Path, default=Path("data/shipped_omniglot"))
    arguments = parser.parse_args()
    drawings, work = arguments.drawings.resolve(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for folder, turned in (("turned", ["--turned"]), (OMNIGLOT, [])):
        if not (work / folder).is_dir():
            run(work, "images", "import", drawings, folder, *turned, *HELD_OUT)
    if not list(work.glob("runs/backbone/*/done")):
        config = ROOT / "configs" / "pretrain" / "omniglot_conv4.yaml"
        small = ["--model.options", "{hidden_size: 32}", "--run.name=backbone", "--data.root=turned"]
        run(work, "pretrain", "fit", "--config", config, *small, "--resume=auto")
        (max(work.glob("runs/backbone/*/")) / "done").touch()
    (done,) = work.glob("runs/backbone/*/done")
    best = done.parent / "checkpoints" / "best.ckpt"
    made = work / "features"
    shutil.rmtree(made, ignore_errors=True)
    run(work, "features", "extract", "--images", OMNIGLOT, "--weights", best, "--out", made, *LAYER)
    for path in (*(split_path(made, split) for split in SPLITS), made / BACKBONE_FILE):
        shutil.copyfile(path, SHIPPED[OMNIGLOT] / path.name)
    if drawings != SHIPPED[OMNIGLOT] / DRAWINGS:
        pack(drawings, SHIPPED[OMNIGLOT] / DRAWINGS)
    write_examples(drawings, ROOT / "examples" / "drawings")


def run(work: Path, *words: object) -> None:
    """Run a command of the package in a folder, with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "leo_lightning", *map(str, words)]
    subprocess.run(command, cwd=work, env=environment, check=True)


def pack(drawings: Path, to: Path) -> None:
    """Write an npz again, without times and a sixth smaller."""
    with ZipFile(drawings) as source, ZipFile(to, "w") as archive:
        for name in source.namelist():
            archive.writestr(ZipInfo(name), source.read(name), ZIP_LZMA)


def write_examples(drawings: Path, folder: Path) -> None:
    """Write drawings to classify: support/CLASS/IMAGE and query/CLASS/IMAGE."""
    with np.load(drawings) as arrays:
        images, labels, names = (arrays[name] for name in ("images", "labels", "names"))
    for part in ("support", "query"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for alphabet, characters in EXAMPLES.items():
        for character, number in characters.items():
            (label,) = np.flatnonzero(names == f"{alphabet}/character{number:02d}")
            pictures = [png_of(image) for image in images[labels == label]]
            chosen = {"support": pictures[:SUPPORT], "query": pictures[SUPPORT : SUPPORT + QUERY]}
            for part, some in chosen.items():
                (folder / part / character).mkdir(parents=True)
                for count, picture in enumerate(some, 1):
                    (folder / part / character / f"{count}.png").write_bytes(picture)
    shutil.copyfile(SHIPPED[OMNIGLOT] / "LICENSE", folder / "LICENSE")


if __name__ == "__main__":
    main()
