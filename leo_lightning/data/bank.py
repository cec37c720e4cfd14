"""FeatureBank: precomputed embeddings of the images of one split, sorted by class."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.labels import Labels, class_numbers

UNKNOWN = "unknown"
"""A data set, crop or backbone in a provenance that nobody named."""
_SKIP = "--data.skip_small_classes true"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_SAMPLED_ROWS = 256  # of a fingerprint
_CHUNK = 2**22  # numbers checked at once: 16 MiB of float32


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Embeddings of the images of one split, grouped by class; shapes are checked, since files may be wrong.

    Attributes:
        embeddings: (n, E), one row per image, as stored: neither normalised nor converted.
        labels: (n,), class of every row, 0 to C-1, in non-decreasing order.
        class_names: name of every class.
        image_names: name of every row's image, where known.
        provenance: where the features came from: dataset, split, crop, backbone, source file.
        source: the bank's name in messages: its file, if it has one.
    """

    embeddings: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    image_names: tuple[str, ...] | None
    provenance: dict[str, str]
    source: str = "features"

    def __post_init__(self) -> None:
        check_lengths(self.embeddings, self.labels, self.image_names, self.source)
        if self.embeddings.dtype not in _DTYPES:
            raise InputError(
                f"{self.source}: embeddings are {self.embeddings.dtype}; "
                "they must be float16, bfloat16 or float32"
            )
        if len(set(self.class_names)) != len(self.class_names):
            raise InputError(f"{self.source}: two classes have the same name; make the file again")
        numbers = torch.arange(self.num_classes)
        if self.labels.dtype != torch.int64 or not torch.equal(self.labels.unique_consecutive(), numbers):
            raise InputError(
                f"{self.source}: labels must be int64 and run from 0 to {self.num_classes - 1}, sorted and "
                "with no class left out; import the features again"
            )

    @classmethod
    def from_arrays(
        cls,
        embeddings: Tensor | np.ndarray,
        labels: Labels,
        image_names: Sequence[str] | None = None,
        provenance: Mapping[str, str] | None = None,
        source: str = "features",
    ) -> "FeatureBank":
        """Build a bank from rows in any order; the rows are copied and sorted by class, stably.

        Args:
            embeddings: (n, E) floating. Kept as stored, except that float64 becomes float32.
            labels: class of every row.
            image_names: name of every row's image.
            provenance: where the features came from.
            source: the features' name in messages.

        Raises:
            InputError: the arrays do not fit together, or hold numbers that are not finite.
        """
        check_lengths(embeddings, labels, image_names, source)
        class_names, classes = class_numbers(labels, source)
        order = np.argsort(classes, kind="stable")
        rows = stored_rows(embeddings[order], source)
        _check_finite(rows, source, order)
        return cls(
            embeddings=rows,
            labels=torch.from_numpy(classes[order]),
            class_names=class_names,
            image_names=None if image_names is None else tuple(str(image_names[row]) for row in order),
            provenance=dict(provenance or {}),
            source=source,
        )

    def only(self, names: Collection[str]) -> "FeatureBank":
        """Return some of the classes, as a bank of its own in memory."""
        kept = np.array([name in names for name in self.class_names])
        labels = self.labels.numpy()
        rows = np.flatnonzero(kept[labels])
        return replace(
            self,
            embeddings=self.embeddings[rows],
            labels=torch.from_numpy((np.cumsum(kept) - 1)[labels[rows]]),
            class_names=tuple(name for name in self.class_names if name in names),
            image_names=None if self.image_names is None else tuple(self.image_names[row] for row in rows),
        )

    def check_finite(self) -> None:
        """Raise an InputError that names the rows with NaN or infinity; reads them all, a chunk at a time."""
        _check_finite(self.embeddings, self.source, np.arange(len(self)))

    def check_varied(self) -> None:
        """Raise an InputError if all embeddings are equal: then the images or the weights were not read."""
        rows = self.embeddings
        size = max(1, _CHUNK // self.embedding_size)
        if (
            len(rows) > 1
            and torch.equal(rows[0], rows[-1])
            and all((c == rows[0]).all() for c in rows.split(size))
        ):
            raise InputError(
                f"{self.source}: all {len(self):,} embeddings are equal; check the images and the weights "
                "that made them"
            )

    def zero_rows(self) -> str | None:
        """Return a remark on rows of zeros, which are images that were not embedded.

        Raises:
            InputError: all rows of a class are zeros.
        """
        size = max(1, _CHUNK // self.embedding_size)
        zero = torch.cat([(chunk == 0).all(dim=1) for chunk in self.embeddings.split(size)])
        if not zero.any():
            return None
        filled = np.bincount(self.labels[~zero].numpy(), minlength=self.num_classes)
        if empty := [self.class_names[number] for number in np.flatnonzero(filled == 0)]:
            raise InputError(
                f"{self.source}: all embeddings of class {listed(empty)} are zeros; "
                "embed its images again, or remove it"
            )
        row = int(zero.int().argmax())
        first = f"class {self.class_names[int(self.labels[row])]}"
        if self.image_names is not None:
            first = f"{self.image_names[row]} of {first}"
        return (
            f"{self.source}: {int(zero.sum())} of {len(self):,} embeddings are zeros, as of "
            f"images that were not embedded (the first: {first})"
        )

    def check_tasks(self, way: int, shot: int, query: int | None, flag: str, unknown: int = 0) -> None:
        """Raise an InputError unless tasks of this size can be drawn.

        Args:
            way: N.
            shot: K.
            query: Q; None for all remaining images.
            flag: the setting of Q, for the message.
            unknown: M, classes beside the N that have queries only.
        """
        if unknown and self.num_classes < way + unknown:
            raise InputError(
                f"{self.source}: {self.num_classes} classes are too few for {way}-way tasks with {unknown} "
                "unknown classes; lower --data.unknown or --data.way"
            )
        if self.num_classes < way:
            raise InputError(
                f"{self.source}: {self.num_classes} classes are too few for {way}-way tasks; lower --data.way"
            )
        smallest = int(self.counts.argmin())
        images, needed = int(self.counts[smallest]), shot + (1 if query is None else query)
        if images == 1:
            alone = [name for name, count in zip(self.class_names, self.counts, strict=True) if count == 1]
            raise InputError(
                f"{self.source}: has only 1 image of class {listed(alone)}, and a task needs at least 2 (1 "
                f"support + 1 query); merge such classes with others, or leave them out: {_SKIP}"
            )
        if images < needed:
            queries = needed - shot
            larger = [name for name, number in (("--data.shot", shot), (flag, queries)) if number > 1]
            raise InputError(
                f"{self.source}: class {self.class_names[smallest]} has {images} images, a task needs "
                f"{needed} ({shot} support + {queries} query); lower {' or '.join(larger)}, or leave "
                f"such classes out: {_SKIP}"
            )

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def embedding_size(self) -> int:
        """Length of an embedding, E."""
        return self.embeddings.shape[1]

    @property
    def summary(self) -> str:
        """The bank's size in words."""
        classes, images = self.num_classes, len(self)
        return f"{classes} classes, {images:,} images, embeddings of size {self.embedding_size}"

    @cached_property
    def counts(self) -> Int64[np.ndarray, " C"]:
        """Number of images of every class."""
        return np.bincount(self.labels.numpy(), minlength=self.num_classes).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of sizes, class names and some of the rows, enough to tell other features; reads little."""
        digest = hashlib.sha256(repr((self.embeddings.shape, self.class_names)).encode())
        digest.update(self.counts.tobytes())
        rows = torch.linspace(0, len(self) - 1, min(len(self), _SAMPLED_ROWS)).long()
        digest.update(self.embeddings[rows].float().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " C"]:
        """Row of every class's first image."""
        return np.cumsum(self.counts) - self.counts


def listed(items: Sequence[object], most: int = 5) -> str:
    """Return the first few items for a message, quoted where they are text."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(repr(item) for item in items[:most]) + rest


def check_lengths(
    embeddings: Tensor | np.ndarray, labels: Labels | None, image_names: Labels | None, source: str
) -> None:
    """Raise an InputError unless there is one row of numbers, one label and one name per image, if any."""
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InputError(
            f"{source}: embeddings have shape {tuple(embeddings.shape)}; "
            "they must be one row of numbers per image"
        )
    for values, name in ((labels, "labels"), (image_names, "image names")):
        if isinstance(values, Tensor | np.ndarray) and values.ndim != 1:
            raise InputError(f"{source}: {name} have shape {tuple(values.shape)}; give one per row")
        if values is not None and len(values) != len(embeddings):
            raise InputError(
                f"{source}: {len(embeddings)} embeddings but {len(values)} {name}; give one per row"
            )


def _check_finite(embeddings: Float[Tensor, "n E"], source: str, numbers: Int64[np.ndarray, " n"]) -> None:
    """Raise if a row is not finite; `numbers` are what the message calls the rows."""
    size = max(1, _CHUNK // embeddings.shape[1])
    finite = torch.cat([chunk.isfinite().all(dim=1) for chunk in embeddings.split(size)])
    if not finite.all():
        bad = np.sort(numbers[~finite.numpy()]).tolist()
        raise InputError(
            f"{source}: holds numbers that are not finite in {len(bad)} of {len(numbers)} rows "
            f"({listed(bad)}); remove these rows or compute them again"
        )
    norm = partial(torch.linalg.vector_norm, dim=1, dtype=torch.float32)
    lengths = [norm(chunk) for chunk in embeddings.split(size)]
    if not (short := torch.cat(lengths).isfinite()).all():
        bad = np.sort(numbers[~short.numpy()]).tolist()
        raise InputError(
            f"{source}: holds numbers too large to normalise in {len(bad)} of {len(numbers)} rows "
            f"({listed(bad)}); divide all embeddings by a constant"
        )


def stored_rows(embeddings: Tensor | np.ndarray, source: str) -> Float[Tensor, "n E"]:
    """Return rows as a bank stores them: float64 becomes float32; the others are neither changed nor copied.

    Raises:
        InputError: the rows are not floating point numbers.
    """
    if isinstance(embeddings, np.ndarray) and embeddings.dtype.kind == "f":
        dtype = np.float16 if embeddings.dtype.itemsize == 2 else np.float32
        with np.errstate(over="ignore"):  # what overflows becomes infinite, which `check_finite` reports
            return torch.from_numpy(embeddings.astype(dtype, copy=False))
    if isinstance(embeddings, Tensor) and embeddings.dtype in (*_DTYPES, torch.float64):
        rows = embeddings.detach().cpu()
        return rows.float() if rows.dtype == torch.float64 else rows
    raise InputError(f"{source}: embeddings are {embeddings.dtype}; they must be floating point numbers")
