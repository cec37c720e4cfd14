"""What is finished of an extraction, on disk until all of it is: what a kill leaves.

It lies in DST/.extract, beside where the feature files will be:

    settings.json              all that an embedding depends on, except its image
    SPLIT-ROW.safetensors      a shard: embeddings of consecutive images, that row the first
    complete/                  feature files and backbone, on their way into DST

A shard holds whole batches, and a digest of the names, sizes and times of its images. If its images are
still the same, in the same places of the same batches, it is taken over; otherwise it is made anew. So what
comes out is, to the last bit, what one undisturbed run makes of the images as they are now.
"""

import fcntl
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
from leo_lightning.data.splits import SPLITS, UNFINISHED, check_vacant, split_path
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.extraction.embedder import Embedded
from leo_lightning.images.folder import ImageSplit

WORK_FOLDER = UNFINISHED
SECONDS = 10.0
"""A kill costs so much work, or one batch …"""
BYTES = 2**26
"""… and memory holds no more than this."""
_SETTINGS = "settings.json"
_SHARDS = "*-*.safetensors"


class Shards:
    """The finished embeddings of one split.

    Args:
        folder: where they lie.
        split: of which split.
        images: its images.
        batch_size: images in a batch.
        take_gaps: whether a shard with images that could not be read is taken over.
    """

    def __init__(
        self, folder: Path, split: str, images: ImageSplit, batch_size: int, take_gaps: bool
    ) -> None:
        self.folder = folder
        self.split = split
        self.images = images
        self.batch_size = batch_size
        self._stamps = [_stamp(images, row) for row in range(len(images))]
        self._pending: list[Embedded] = []
        self._written = time.monotonic()
        self.done = self._take_over(take_gaps)
        """How many images, from the first on, are on disk."""

    def add(self, batch: Embedded) -> None:
        """Take the next batch; write what has come together, now and then.

        Raises:
            InputError: the disk does not take it.
        """
        self._pending.append(batch)
        size = sum(each.embeddings.nbytes for each in self._pending)
        if size >= BYTES or time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is not on disk yet.

        Raises:
            InputError: the disk does not take it.
        """
        if not self._pending:
            return
        unread = torch.cat([each.unread_rows() for each in self._pending])
        tensors = {"embeddings": torch.cat([each.embeddings for each in self._pending]), "unread": unread}
        header = {"images": self._digest(self.done, len(unread))}
        with whole_file(self._path(self.done)) as part:
            part.write_bytes(save(tensors, header))
        self.done += len(unread)
        self._pending = []
        self._written = time.monotonic()

    def bank(self, provenance: Mapping[str, str]) -> tuple[FeatureBank, list[str]]:
        """Put the split together, once all of it is on disk.

        Returns:
            The bank, mapped into memory from a file beside the shards; and the names of images that could not
            be read, which it lacks.

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
        images = self.images.without(unread) if unread else self.images
        embeddings = torch.from_file(str(rows), size=len(images) * width, dtype=dtype)
        bank = FeatureBank(
            embeddings=embeddings.view(len(images), width),
            labels=torch.from_numpy(images.labels),
            class_names=images.class_names,
            image_names=images.names,
            provenance=dict(provenance),
            source=self.split,
        )
        return bank, [self.images.names[row] for row in unread]

    def _take_over(self, take_gaps: bool) -> int:
        """Find the shards that still hold, delete the others; how many images the former have."""
        done, kept = 0, set()
        while (path := self._path(done)).exists():
            try:
                with safe_open(path, framework="pt") as shard:
                    unread, digest = shard.get_tensor("unread"), (shard.metadata() or {}).get("images")
            except (SafetensorError, OSError):
                break
            end = done + len(unread)
            whole = end == len(self.images) or end % self.batch_size == 0
            if not whole or digest != self._digest(done, len(unread)) or (unread.any() and not take_gaps):
                break
            kept.add(path)
            done = end
        for path in self.folder.glob(f"{self.split}-*.safetensors"):
            if path not in kept:
                path.unlink()
        return done

    def _path(self, first: int) -> Path:
        return self.folder / f"{self.split}-{first:09d}.safetensors"

    def _digest(self, first: int, count: int) -> str:
        """Of the images in some rows; of none if there are not so many."""
        stamps = self._stamps[first : first + count]
        return hashlib.sha256("".join(stamps).encode()).hexdigest() if len(stamps) == count else ""


def _stamp(images: ImageSplit, row: int) -> str:
    """What tells whether an image is still the same."""
    try:
        status = images.path(row).stat()
    except OSError:  # a link to nowhere, for example; reading it will say so
        return f"{images.names[row]}\0\n"
    return f"{images.names[row]}\0{status.st_size}\0{status.st_mtime_ns}\n"


@contextmanager
def work_folder(
    dst: Path, settings: Mapping[str, object], overwrite: bool, report: Callable[[str], None]
) -> Iterator[Path]:
    """The folder of an extraction into `dst`, for this process alone; with nothing in it that does not fit.

    If nothing has come of the extraction in the end, nothing is left.

    Args:
        dst: where the feature files will be.
        settings: all that an embedding depends on, except its image.
        overwrite: whether features that are there will be replaced, and an unfinished extraction with other
            settings is given up.
        report: takes a line about what is given up.

    Raises:
        InputError: there are features in `dst`, or an unfinished extraction with other settings, or another
            process is at work there, or nothing can be written there.
    """
    check_free(dst, overwrite)
    folder, made = dst / WORK_FOLDER, [path for path in (dst, *dst.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "lock", dst):
            try:
                _begin(folder, settings, overwrite, report)
                yield folder
            finally:
                if not _has_something(folder):
                    shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        with suppress(OSError):  # something is in it
            for path in made:
                path.rmdir()


def check_free(dst: Path, overwrite: bool) -> None:
    """Check that an extraction may write into `dst`, or that one has all but ended there.

    Raises:
        InputError: `dst` is a file, or holds what would be replaced and may not be.
    """
    if is_complete(dst / WORK_FOLDER):
        return
    check_vacant(dst, overwrite)
    if (dst / BACKBONE_FILE).exists() and not overwrite:
        raise InputError(
            f"{dst}: already holds {BACKBONE_FILE}; name another folder, or replace it with --overwrite"
        )


def is_complete(folder: Path) -> bool:
    """Whether all that an extraction makes is there; what is missing has been moved already."""
    return (folder / "complete").exists()


def commit(folder: Path, finished: Path) -> None:
    """Declare the feature files and the backbone in `finished` to be complete."""
    for split in SPLITS:  # of features that are replaced: old and new splits never mix
        if not split_path(finished, split).exists():
            split_path(folder.parent, split).unlink(missing_ok=True)
    os.rename(finished, folder / "complete")


def publish(folder: Path) -> None:
    """Move what is complete into place, and remove what it was made of."""
    complete = folder / "complete"
    for name in (*(split_path(complete, split).name for split in SPLITS), BACKBONE_FILE):
        if (complete / name).exists():
            os.replace(complete / name, folder.parent / name)
    complete.rmdir()  # from here on it has ended, whatever is left
    shutil.rmtree(folder)


def _begin(
    folder: Path, settings: Mapping[str, object], overwrite: bool, report: Callable[[str], None]
) -> None:
    """See whether what is in the folder was made with these settings; remove it if not."""
    wanted = json.loads(json.dumps(settings))
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing has begun, or something has ended, here
        found = None
    if found not in (None, wanted) and _has_something(folder):
        differing = [
            name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]
        ]
        line = f"{folder.parent}: holds an unfinished extraction with other settings ({', '.join(differing)})"
        if not overwrite:
            raise InputError(f"{line}; repeat those, name another folder, or give it up with --overwrite")
        report(f"{line}; it is given up")
    kept = {folder / "lock"}
    if found == wanted:  # of use; what else a killed process has left is not
        kept |= {folder / _SETTINGS, folder / "complete", *folder.glob(_SHARDS)}
    for path in set(folder.iterdir()) - kept:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with whole_file(folder / _SETTINGS) as part:
        part.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _has_something(folder: Path) -> bool:
    return is_complete(folder) or any(folder.glob(_SHARDS))


@contextmanager
def _alone(lock: Path, dst: Path) -> Iterator[None]:
    """Keep other extractions out."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(
            f"{dst}: another extraction is at work here; wait for its end, or name another folder with --out"
        ) from None
    finally:
        os.close(file)
