"""extract: a data set's images to feature files, with the backbone beside them."""

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
from leo_lightning.data.splits import UNFINISHED, load_splits, save_splits, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import digest, save_backbone
from leo_lightning.images.extraction.embedder import Embedded, Embedder
from leo_lightning.images.extraction.progress import image_progress
from leo_lightning.images.extraction.shards import (
    Shards,
    commit,
    is_complete,
    may_be_finished,
    publish,
    work_folder,
)
from leo_lightning.images.folder import ImageSplit, OnError, refuse_files

DType = Literal["float16", "float32"]
PACKAGES = ("torch", "timm", "pillow")
"""Packages whose version may change an embedding."""


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
    """Write the embeddings of all splits, and the backbone that made them, into a folder: all, or nothing.

    After an interruption or a kill, the same call continues, and makes the same files to the last bit: see
    `shards`. After its end, the same call says so and returns what is there.

    Args:
        splits: the images.
        embedder: makes the embeddings.
        dst: the folder; made if missing.
        dataset: name of the images, for the record.
        weights: name of the backbone's weights, for the record.
        dtype: of the stored embeddings.
        on_error: refuse images that cannot be read, or leave them out and report them.
        overwrite: replace features in `dst`, and discard an unfinished extraction with other settings.
        console: where to print.

    Returns:
        The splits, read back from their files.

    Raises:
        InputError: `dst` is in use (see `work_folder`); an image cannot be read, or its embedding is not
            finite; no image of a class can be read; or the disk is full.
    """
    console = console or Console()

    def report(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def note(line: str) -> None:
        report(f"note: {line}")

    settings = {  # all that an embedding depends on, except its image
        **asdict(embedder.recipe),
        "weights_sha256": digest(embedder.backbone),
        "dtype": dtype,
        "batch_size": embedder.batch_size,
        "precision": embedder.precision,
        "device": embedder.device.type,
        **{package: version(package) for package in PACKAGES},
    }
    record = {
        "dataset": dataset,
        **{name: str(settings[name]) for name in ("backbone", "layer", "crop")},
        "recipe": embedder.recipe.dumps(),
        "weights": weights,
        **{name: str(settings[name]) for name in ("weights_sha256", "precision", *PACKAGES)},
    }
    if not overwrite and (banks := _finished(splits, dst, record, getattr(torch, dtype), on_error)):
        report(f"{dst}: all is done, with these images, weights and settings; nothing was computed")
        return banks
    with work_folder(dst, settings, overwrite, note) as folder:
        if not is_complete(folder):
            with whole_file(folder / BACKBONE_FILE) as part:
                save_backbone(embedder.backbone, part)
            all_shards = [
                Shards(folder, split, images, embedder.batch_size, keep_gaps=on_error == "skip")
                for split, images in splits.items()
            ]
            for shards in all_shards:
                if shards.done:
                    total = len(shards.images)
                    report(f"{shards.split}: {shards.done:,} of {total:,} images were done before")
            _embed(all_shards, embedder, getattr(torch, dtype), on_error, console)
            save_splits(_banks(all_shards, record, note), folder / "finished", overwrite=True)
            (folder / BACKBONE_FILE).rename(folder / "finished" / BACKBONE_FILE)
            commit(folder, folder / "finished")
        publish(folder)
    return load_splits(dst)


def _finished(
    splits: Mapping[str, ImageSplit],
    dst: Path,
    record: Mapping[str, str],
    dtype: torch.dtype,
    on_error: OnError,
) -> dict[str, FeatureBank]:
    """Return the features in `dst` if they are those of these images and this record; otherwise none.

    Batch size and device are not compared: they change the rounding only.
    """
    if is_complete(dst / UNFINISHED) or not may_be_finished(dst):
        return {}
    try:
        banks = load_splits(dst)
    except InputError:
        return {}
    for split, images in splits.items():
        bank = banks.get(split)
        if bank is None or bank.embeddings.dtype != dtype or bank.provenance != {**record, "split": split}:
            return {}
        stored = (
            {} if bank.image_names is None else dict(zip(bank.image_names, bank.labels.tolist(), strict=True))
        )
        found = dict(zip(images.names, images.labels.tolist(), strict=True))
        same = stored.items() <= found.items() if on_error == "skip" else stored == found
        if not same or bank.class_names != images.class_names:
            return {}
        written = split_path(dst, split).stat().st_mtime_ns
        if any(_changed(images.path(row)) > written for row in range(len(images))):
            return {}
    return banks if len(banks) == len(splits) else {}


def _changed(image: Path) -> int:
    """Return when an image was written, or came to its place: a copy may keep the time of the original."""
    status = image.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _embed(
    all_shards: list[Shards], embedder: Embedder, dtype: torch.dtype, on_error: OnError, console: Console
) -> None:
    """Make the embeddings that are missing."""
    total = sum(len(shards.images) for shards in all_shards)
    try:
        with image_progress(console, total, sum(shards.done for shards in all_shards)) as advance:
            for shards in all_shards:
                paths = [shards.images.path(row) for row in range(shards.done, len(shards.images))]
                try:
                    with closing(embedder.batches(paths)) as batches:
                        for batch in batches:
                            if batch.errors and on_error == "refuse":
                                _refuse_unreadable(all_shards, embedder)
                            shards.add(_checked(batch, dtype))
                            advance(shards.split, len(batch.paths))
                finally:
                    shards.write()
    except KeyboardInterrupt:
        done = sum(shards.done for shards in all_shards)
        raise KeyboardInterrupt(
            f"interrupted: {done:,} of {total:,} images are done; run the same command again to continue"
        ) from None


def _refuse_unreadable(all_shards: list[Shards], embedder: Embedder) -> None:
    """Refuse, all at once, the images that cannot be read among those that have no embedding yet."""
    rest = [
        shards.images.path(row) for shards in all_shards for row in range(shards.done, len(shards.images))
    ]
    with closing(embedder.read_ahead(rest)) as images:
        errors = {
            path: image for path, image in zip(rest, images, strict=True) if isinstance(image, InputError)
        }
    if len(errors) == 1:  # there is room for the reason
        raise InputError(f"{next(iter(errors.values()))}, or leave it out: --on-error skip")
    refuse_files(all_shards[0].images.folder.parent, list(errors), "cannot be read as images", "--on-error")


def _checked(batch: Embedded, dtype: torch.dtype) -> Embedded:
    """Return the batch as it will be stored; refuse embeddings that are not finite."""
    embeddings = batch.embeddings.to(dtype)
    finite = embeddings.isfinite().all(1) | batch.unread
    if not finite.all():
        row = int(finite.int().argmin())
        too_large = batch.embeddings[row].isfinite().all()
        advice = "use --dtype float32" if too_large else "the weights may be damaged, or need another recipe"
        raise InputError(f"{batch.paths[row]}: its embedding is not finite; {advice}")
    return batch._replace(embeddings=embeddings)


def _banks(
    all_shards: list[Shards], record: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[tuple[str, FeatureBank]]:
    """Assemble the splits one by one."""
    for shards in all_shards:
        bank, unread = shards.bank({**record, "split": shards.split})
        if unread:
            count = f"{len(unread):,} of {len(shards.images):,} images"
            note(f"{shards.split}: {count} cannot be read and are left out: {listed(unread, 20)}")
        yield shards.split, bank
