"""`python -m benchmarks.extraction`: images per second of `features extract`, and where the time goes.

It uses random networks and generated images: JPEG files of ImageNet's average size, and PNG files as small as
miniImageNet's.
"""

import argparse
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.report import machine
from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.decode import read_image
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.extraction.extract import extract
from leo_lightning.images.folder import ImageSplit


class Kind(NamedTuple):
    """Format and size of image files."""

    suffix: str
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.suffix} {self.width} × {self.height}"


class Work(NamedTuple):
    """A measurement: a number of images, in batches, through a network."""

    network: str
    images: int
    batch_size: int


KINDS = (Kind("jpg", 375, 500), Kind("png", 84, 84))
WORK = (Work("wrn-28-10", 40, 8), Work("resnet-12", 128, 32), Work("conv-4", 512, 32))
DIFFERENT = 48
"""Images that are generated. They are read again and again, so that the disk hardly matters."""


class Timed(Embedder):
    """Measures the time in the network, and the time spent waiting for images."""

    network_seconds = 0.0
    waiting_seconds = 0.0

    def read_ahead(self, paths: Sequence[Path]) -> Generator[Tensor | InputError, None, None]:
        images = super().read_ahead(paths)
        while True:
            began = time.perf_counter()
            image = next(images, None)
            self.waiting_seconds += time.perf_counter() - began
            if image is None:
                return
            yield image

    def embed_views(self, images: Tensor) -> Tensor:
        began = time.perf_counter()
        embeddings = super().embed_views(images)
        self.network_seconds += time.perf_counter() - began
        return embeddings


def make_images(folder: Path, kind: Kind, different: int) -> list[Path]:
    """Generate images with the detail of photographs, judging by the size of their files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = []
    for i in range(different):
        coarse = rng.integers(0, 256, (kind.height // 16 + 1, kind.width // 16 + 1, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((kind.width, kind.height), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth).astype(np.int16) + rng.integers(-12, 13, (kind.height, kind.width, 3))
        paths.append(folder / f"{i}.{kind.suffix}")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def reading_rate(paths: Sequence[Path], recipe: Recipe) -> float:
    """Images per second that one thread reads when it does nothing else."""
    read_image(paths[0], recipe.channels, recipe.resize)
    began = time.perf_counter()
    for path in paths:
        read_image(path, recipe.channels, recipe.resize)
    return len(paths) / (time.perf_counter() - began)


def measure(work: Work, paths: Sequence[Path], folder: Path, workers: int | None) -> tuple[float, Timed]:
    """Extract features; the seconds it took, and the embedder with its own measurements."""
    torch.manual_seed(0)
    embedder = Timed(Backbone(Recipe(work.network)), work.batch_size, workers)
    names = [paths[i % len(paths)].name for i in range(work.images)]
    images = ImageSplit(paths[0].parent, tuple(names), np.zeros(work.images, np.int64), ("class",))
    with open(os.devnull, "w") as nowhere:
        began = time.perf_counter()
        console = Console(file=nowhere)
        extract({"train": images}, embedder, folder / work.network, "images", "random", console=console)
        return time.perf_counter() - began, embedder


def main(argv: list[str] | None = None, works: Sequence[Work] = WORK, different: int = DIFFERENT) -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options.add_argument("--workers", type=int, help="threads that read (default: one per core)")
    options.add_argument("--network", action="append", help="only this one; may be repeated")
    chosen = options.parse_args(argv)
    torch.set_num_threads(chosen.threads)
    console = Console()
    console.width = max(console.width, 100)
    table = Table("network", "images")
    for column in ("batch", "images/s", "network", "waits", "rest", "a thread reads"):
        table.add_column(column, justify="right")
    with TemporaryDirectory(prefix="leo-benchmarks-") as name:
        for kind in KINDS:
            folder = Path(name) / kind.suffix
            paths = make_images(folder, kind, different)
            size = sum(path.stat().st_size for path in paths) / len(paths)
            for work in works:
                if chosen.network and work.network not in chosen.network:
                    continue
                rate = reading_rate(paths, Recipe(work.network))
                seconds, timed = measure(work, paths, folder, chosen.workers)
                rest = seconds - timed.network_seconds - timed.waiting_seconds
                shares = [part / seconds for part in (timed.network_seconds, timed.waiting_seconds, rest)]
                table.add_row(
                    work.network,
                    f"{kind}, {size / 1e3:.0f} KB",
                    str(work.batch_size),
                    f"{work.images / seconds:,.1f}",
                    *(f"{share:.1%}" for share in shares),
                    f"{rate:,.0f}/s",
                )
    console.print(table)
    print("fractions of the time: network, waiting for images, and the rest (assembling and writing)")
    console.print(
        ", ".join(f"{key} {value}" for key, value in machine(chosen.threads).items()), highlight=False
    )


if __name__ == "__main__":
    main()
