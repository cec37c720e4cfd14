"""The finished part of an extraction, on disk until everything is: what a kill leaves behind.

It is in DST/.extract, beside the place of the feature files:

    settings.json              all that an embedding depends on, except its image
    SPLIT-ROW.safetensors      a shard: embeddings of consecutive images, the first in that row
    complete/                  feature files and backbone, on their way into DST

A shard holds whole batches, and a digest of the names, sizes and times of its images. It is kept if these
are unchanged, in the same places of the same batches; otherwise it is made again. So the result is, to the
last bit, that of one undisturbed run on the images as they are now.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import cannot_write, whole_file
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.splits import SPLITS, UNFINISHED, check_vacant, claim, present_splits, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.extraction.embedder import Embedded
from leo_lightning.images.folder import ImageSplit

SECONDS = 10.0
"""A kill costs this much work, or one batch …"""
BYTES = 2**26
"""… and memory holds no more than this."""
_SETTINGS, _SHARDS = "settings.json", "*-*.safetensors"


class Shards:
    """The finished embeddings of one split.

    Args:
        folder: where the shards are.
        split: its name.
        images: its images.
        batch_size: images per batch.
        keep_gaps: whether to keep a shard with images that could not be read.
    """

    def __init__(
        self, folder: Path, split: str, images: ImageSplit, batch_size: int, keep_gaps: bool
    ) -> None:
        self.folder, self.split, self.images, self.batch_size = folder, split, images, batch_size
        self._stamps = [_stamp(images, row) for row in range(len(images))]
        self._pending: list[Embedded] = []
        self._written = time.monotonic()
        self.done = self._keep_valid(keep_gaps)
        """Number of images, from the first on, that are on disk."""

    def add(self, batch: Embedded) -> None:
        """Take the next batch; from time to time, write what has accumulated."""
        self._pending.append(batch)
        size = sum(pending.embeddings.nbytes for pending in self._pending)
        if size >= BYTES or time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is not on disk yet."""
        if not self._pending:
            return
        unread = torch.cat([batch.unread for batch in self._pending])
        tensors = {"embeddings": torch.cat([batch.embeddings for batch in self._pending]), "unread": unread}
        header = {"images": self._digest(self.done, len(unread))}
        with whole_file(self._path(self.done)) as part:
            part.write_bytes(save(tensors, header))
        self.done += len(unread)
        self._pending = []
        self._written = time.monotonic()

    def bank(self, provenance: Mapping[str, str]) -> tuple[FeatureBank, list[str]]:
        """Assemble the split from its shards.

        Returns:
            The bank, memory-mapped from a file beside the shards, without the images that could not be read;
            and their names.

        Raises:
            InputError: no image of a class could be read, or the disk is full.
        """
        rows, unread = self.folder / f"{self.split}.rows", list[int]()
        first, width, dtype = 0, 0, torch.float32
        try:
            with rows.open("wb") as file:
                while first < len(self.images):
                    with safe_open(self._path(first), framework="pt") as shard:
                        embeddings, gaps = shard.get_tensor("embeddings"), shard.get_tensor("unread")
                    file.write(embeddings[~gaps].numpy().data)
                    unread += (gaps.nonzero().flatten() + first).tolist()
                    first, width, dtype = first + len(gaps), embeddings.shape[1], embeddings.dtype
        except OSError as error:
            raise cannot_write(rows, error) from None
        images = self.images.without(unread)
        embeddings = torch.from_file(str(rows), size=len(images) * width, dtype=dtype).view(-1, width)
        labels = torch.from_numpy(images.labels)
        bank = FeatureBank(
            embeddings, labels, images.class_names, images.names, dict(provenance), source=self.split
        )
        return bank, [self.images.names[row] for row in unread]

    def _keep_valid(self, keep_gaps: bool) -> int:
        """Delete the shards that are no longer valid; return the number of images in the others."""
        done, valid = 0, set()
        while (path := self._path(done)).exists():
            try:
                with safe_open(path, framework="pt") as shard:
                    unread, digest = shard.get_tensor("unread"), (shard.metadata() or {}).get("images")
            except (SafetensorError, OSError):
                break
            end = done + len(unread)
            whole = end == len(self.images) or end % self.batch_size == 0
            if not whole or digest != self._digest(done, len(unread)) or (unread.any() and not keep_gaps):
                break
            valid.add(path)
            done = end
        for path in self.folder.glob(f"{self.split}-*.safetensors"):
            if path not in valid:
                path.unlink()
        return done

    def _path(self, first: int) -> Path:
        return self.folder / f"{self.split}-{first:09d}.safetensors"

    def _digest(self, first: int, count: int) -> str:
        """Return a digest of some images; empty if there are not that many."""
        stamps = self._stamps[first : first + count]
        return hashlib.sha256("".join(stamps).encode()).hexdigest() if len(stamps) == count else ""


def _stamp(images: ImageSplit, row: int) -> str:
    """Return a text that changes when an image does."""
    try:
        status = images.path(row).stat()
        return f"{images.names[row]}\0{status.st_size}\0{status.st_mtime_ns}\n"
    except OSError:  # a broken link, for example; reading the image will report it
        return f"{images.names[row]}\0\n"


@contextmanager
def work_folder(
    dst: Path, settings: Mapping[str, object], overwrite: bool, report: Callable[[str], None]
) -> Iterator[Path]:
    """Open the folder of an extraction into `dst` for this process alone, without anything that does not fit.

    If nothing is finished in the end, nothing is left behind.

    Args:
        dst: where the feature files will be.
        settings: all that an embedding depends on, except its image.
        overwrite: replace features in `dst`, and discard an unfinished extraction with other settings.
        report: prints a line about what is discarded.

    Raises:
        InputError: `dst` holds features or an unfinished extraction with other settings, or another process
            is writing there.
    """
    check_free(dst, overwrite)
    folder, made = dst / UNFINISHED, [path for path in (dst, *dst.parents) if not path.exists()]
    try:
        dst.mkdir(parents=True, exist_ok=True)
        with claim(dst):
            try:
                folder.mkdir(exist_ok=True)
                _begin(folder, settings, overwrite, report)
                yield folder
            finally:
                if not _has_results(folder):
                    shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def check_free(dst: Path, overwrite: bool) -> None:
    """Refuse a `dst` that is a file, or holds features of another extraction, with an InputError."""
    if is_complete(dst / UNFINISHED):  # it has all but ended here
        return
    check_vacant(dst, overwrite)
    if (dst / BACKBONE_FILE).exists() and not overwrite:
        raise InputError(f"{dst}: already holds {BACKBONE_FILE}; name another folder, or add --overwrite")


def may_be_finished(dst: Path) -> bool:
    """Tell whether a folder holds what an extraction writes."""
    return bool(present_splits(dst)) and (dst / BACKBONE_FILE).exists()


def is_complete(folder: Path) -> bool:
    """Tell whether all files of an extraction were made; some may already be in their place."""
    return (folder / "complete").exists()


def commit(folder: Path, finished: Path) -> None:
    """Declare the feature files and the backbone in `finished` complete."""
    for split in SPLITS:  # old and new splits never mix
        if not split_path(finished, split).exists():
            split_path(folder.parent, split).unlink(missing_ok=True)
    os.rename(finished, folder / "complete")


def publish(folder: Path) -> None:
    """Move complete files into place, and remove the work folder."""
    complete = folder / "complete"
    names = [*(split_path(complete, split).name for split in SPLITS), BACKBONE_FILE]
    names = [name for name in names if (complete / name).exists()]
    for name in names:  # first of all, so that a kill never leaves files of two data sets
        (folder.parent / name).unlink(missing_ok=True)
    for name in names:
        os.rename(complete / name, folder.parent / name)
    complete.rmdir()  # from here on the extraction has ended, whatever is left
    shutil.rmtree(folder)


def _begin(
    folder: Path, settings: Mapping[str, object], overwrite: bool, report: Callable[[str], None]
) -> None:
    """Remove from the folder what was made with other settings."""
    wanted = json.loads(json.dumps(settings))
    try:
        stored = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing has begun here, or something has ended
        stored = None
    if stored not in (None, wanted) and _has_results(folder):
        changed = [
            name for name in wanted if not isinstance(stored, dict) or stored.get(name) != wanted[name]
        ]
        line = f"{folder.parent}: holds an unfinished extraction with other settings ({', '.join(changed)})"
        if not overwrite:
            raise InputError(f"{line}; use the same settings, name another folder, or add --overwrite")
        report(f"{line}, which is discarded")
    kept = set[Path]()
    if stored == wanted:  # nothing else that a killed process has left is of use
        kept = {folder / _SETTINGS, folder / "complete", *folder.glob(_SHARDS)}
    for path in set(folder.iterdir()) - kept:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with whole_file(folder / _SETTINGS) as part:
        part.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _has_results(folder: Path) -> bool:
    return is_complete(folder) or any(folder.glob(_SHARDS))
