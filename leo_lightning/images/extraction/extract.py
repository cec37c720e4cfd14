"""extract: a data set's images to feature files, and the backbone beside them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import whole_file
from leo_lightning.data.bank import FeatureBank, listed
from leo_lightning.data.splits import load_split, present_splits, save_splits
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import digest, save_backbone
from leo_lightning.images.extraction.embedder import Embedded, Embedder
from leo_lightning.images.extraction.progress import ImageProgress
from leo_lightning.images.extraction.shards import Shards, commit, is_complete, publish, work_folder
from leo_lightning.images.folder import ImageSplit, OnError

DType = Literal["float16", "float32"]
PACKAGES = ("torch", "timm", "pillow")
"""Whose releases may change an embedding."""


def extract(
    splits: Mapping[str, ImageSplit],
    embedder: Embedder,
    dst: Path,
    dataset: str,
    weights: str,
    dtype: DType = "float32",
    on_error: OnError = "refuse",
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, FeatureBank]:
    """Write the embeddings of all splits and the backbone that made them into a folder: all, or nothing.

    The same call after it was interrupted, or killed, goes on where that one was, and makes the same files to
    the last bit; see `shards`.

    Args:
        splits: the images.
        embedder: makes the embeddings.
        dst: the folder; made if missing.
        dataset: name of the images, for the record.
        weights: name of the backbone's weights, for the record.
        dtype: in which embeddings are stored.
        on_error: of images that cannot be read: refuse them, or leave them out and say so.
        overwrite: replace features that are in `dst`, and give up an extraction with other settings.
        console: where to print.

    Returns:
        The splits, read back from their files.

    Raises:
        InputError: see `work_folder`; an image cannot be read or its embedding is not finite; no image of a
            class can be read; or the disk is full.
    """
    console = console or Console()

    def report(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def note(line: str) -> None:
        report(f"note: {line}")

    settings = settings_of(embedder, dtype)
    with work_folder(dst, settings, overwrite, note) as folder:
        if not is_complete(folder):
            with whole_file(folder / BACKBONE_FILE) as part:
                save_backbone(embedder.backbone, part)
            shards = {
                split: Shards(folder, split, images, embedder.batch_size, take_gaps=on_error == "skip")
                for split, images in splits.items()
            }
            for split, one in shards.items():
                if one.done:
                    report(f"{split}: {one.done:,} of {len(splits[split]):,} images were there")
            _embed(shards, embedder, getattr(torch, dtype), on_error, console)
            recipe = embedder.recipe
            record = {
                "dataset": dataset,
                "backbone": recipe.backbone,
                "layer": recipe.layer,
                "crop": recipe.crop,
                "recipe": recipe.dumps(),
                "weights": weights,
                **{name: str(settings[name]) for name in ("weights_sha256", "precision", *PACKAGES)},
            }
            _put_together(shards, record, folder, note)
        publish(folder)
    return {split: load_split(dst, split) for split in present_splits(dst)}


def settings_of(embedder: Embedder, dtype: DType) -> dict[str, object]:
    """All that an embedding depends on, except its image."""
    return {
        **asdict(embedder.recipe),
        "weights_sha256": digest(embedder.backbone),
        "dtype": dtype,
        "batch_size": embedder.batch_size,
        "precision": embedder.precision,
        "device": embedder.device.type,
        **{package: version(package) for package in PACKAGES},
    }


def _embed(
    shards: Mapping[str, Shards], embedder: Embedder, dtype: torch.dtype, on_error: OnError, console: Console
) -> None:
    """Make the embeddings that are missing."""
    total = sum(len(one.images) for one in shards.values())
    done = sum(one.done for one in shards.values())
    try:
        with ImageProgress(console, total, done) as progress:
            for split, one in shards.items():
                paths = [one.images.path(row) for row in range(one.done, len(one.images))]
                try:
                    with closing(embedder.batches(paths)) as batches:
                        for start, batch in enumerate(batches):
                            first = start * embedder.batch_size
                            names = paths[first : first + embedder.batch_size]
                            one.add(_checked(batch, names, dtype, on_error))
                            progress.advance(split, len(names))
                finally:
                    one.write()
    except KeyboardInterrupt:
        done = sum(one.done for one in shards.values())
        raise KeyboardInterrupt(
            f"interrupted: {done:,} of {total:,} images are done; run the same command again to continue"
        ) from None


def _checked(batch: Embedded, paths: list[Path], dtype: torch.dtype, on_error: OnError) -> Embedded:
    """The batch as it will be stored.

    Raises:
        InputError: an image could not be read, and is not to be left out; or an embedding is not finite.
    """
    if on_error == "refuse":
        for error in batch.unread.values():
            raise InputError(f"{error}, or leave it out: --on-error skip")
    embeddings = batch.embeddings.to(dtype)
    finite = embeddings.isfinite().all(1) | batch.unread_rows()
    if not finite.all():
        path = paths[int(finite.int().argmin())]
        fits = batch.embeddings.isfinite()[~batch.unread_rows()].all()
        advice = "take --dtype float32" if fits else "the weights may be damaged, or of another recipe"
        raise InputError(f"{path}: its embedding is not finite; {advice}")
    return batch._replace(embeddings=embeddings)


def _put_together(
    shards: Mapping[str, Shards], record: Mapping[str, str], folder: Path, note: Callable[[str], None]
) -> None:
    """Write the feature files, and declare them complete."""

    def banks() -> Iterator[tuple[str, FeatureBank]]:
        for split, one in shards.items():
            bank, unread = one.bank({**record, "split": split})
            if unread:
                count = f"{len(unread):,} of {len(one.images):,} images"
                note(f"{split}: {count} cannot be read and are left out: {listed(unread, 20)}")
            yield split, bank

    finished = folder / "finished"
    save_splits(banks(), finished, overwrite=True)
    (folder / BACKBONE_FILE).rename(finished / BACKBONE_FILE)
    commit(folder, finished)
