"""FeatureBank: precomputed embeddings of the images of one split, sorted by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_CHUNK = 2**22  # numbers looked at in one go: 16 MiB of float32


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Embeddings of the images of one split, grouped by class.

    Tensors from anybody's file may come here, so their shapes are checked always and not only in tests.

    Attributes:
        embeddings: (n, E), one row per image, as stored: neither normalised nor converted.
        labels: (n,), class of every row, 0 to C-1, in non-decreasing order.
        class_names: name of every class.
        image_names: name of every row's image, where known.
        provenance: where the features came from: dataset, split, crop, backbone, source file.
        source: what messages call this bank: its file, if it has one.
    """

    embeddings: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    image_names: tuple[str, ...] | None
    provenance: dict[str, str]
    source: str = "features"

    def __post_init__(self) -> None:
        _check_embeddings(self.embeddings, self.source)
        if self.embeddings.dtype not in _DTYPES:
            raise InputError(
                f"{self.source}: embeddings are {self.embeddings.dtype}; "
                "they must be float16, bfloat16 or float32"
            )
        _check_labels(self.labels, len(self.embeddings), len(self.class_names), self.source)
        if len(set(self.class_names)) != len(self.class_names):
            raise InputError(f"{self.source}: two classes have the same name; make the file again")
        if self.image_names is not None and len(self.image_names) != len(self.embeddings):
            raise InputError(
                f"{self.source}: {len(self.image_names)} image names for {len(self.embeddings)} embeddings; "
                "give one name per row"
            )

    @classmethod
    def from_arrays(
        cls,
        embeddings: Tensor | np.ndarray,
        labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor,
        image_names: Sequence[str] | None = None,
        provenance: Mapping[str, str] | None = None,
        source: str = "features",
    ) -> "FeatureBank":
        """Build a bank from rows in any order; the rows are copied and sorted by class, stably.

        Args:
            embeddings: (n, E) floating. Kept as stored, except that float64 becomes float32.
            labels: class of every row, as whole numbers (sorted as numbers) or names (sorted as text).
            image_names: name of every row's image.
            provenance: where the features came from.
            source: what messages call these features.

        Raises:
            InputError: the arrays do not fit together, or hold numbers that are not finite.
        """
        check_lengths(embeddings, labels, image_names, source)
        class_names, classes = class_numbers(labels, source)
        order = np.argsort(classes, kind="stable")
        rows = _sorted_rows(embeddings, order, source)
        _check_finite(rows, source, order)
        return cls(
            embeddings=rows,
            labels=torch.from_numpy(classes[order]),
            class_names=class_names,
            image_names=None if image_names is None else tuple(str(image_names[row]) for row in order),
            provenance=dict(provenance or {}),
            source=source,
        )

    def check_finite(self) -> None:
        """Check that every embedding is finite; reads them all, a chunk at a time.

        Raises:
            InputError: names the first rows that hold NaN or infinity.
        """
        _check_finite(self.embeddings, self.source)

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

    @cached_property
    def counts(self) -> Int64[np.ndarray, " C"]:
        """Number of images of every class."""
        return np.bincount(self.labels.numpy(), minlength=self.num_classes).astype(np.int64)

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " C"]:
        """Row of every class's first image."""
        return np.cumsum(self.counts) - self.counts


def listed(items: Sequence[object], most: int = 5) -> str:
    """Return the first few items for a message, quoted where they are text."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(repr(item) for item in items[:most]) + more


def check_lengths(
    embeddings: Tensor | np.ndarray,
    labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor | None,
    image_names: Sequence[str] | None,
    source: str,
) -> None:
    """Check that there is one row of numbers, one label and one name per image, if there are any.

    Raises:
        InputError: some have another shape.
    """
    _check_embeddings(embeddings, source)
    if isinstance(labels, Tensor | np.ndarray) and labels.ndim != 1:
        raise InputError(f"{source}: labels have shape {tuple(labels.shape)}; give one label per row")
    for values, what in ((labels, "labels"), (image_names, "image names")):
        if values is not None and len(values) != len(embeddings):
            raise InputError(
                f"{source}: {len(embeddings)} embeddings but {len(values)} {what}; give one per row"
            )


def _check_embeddings(embeddings: Tensor | np.ndarray, source: str) -> None:
    shape = tuple(embeddings.shape)
    if len(shape) != 2:
        raise InputError(
            f"{source}: embeddings have shape {shape}; they must be one row of numbers per image"
        )
    if 0 in shape:
        raise InputError(f"{source}: embeddings have shape {shape}; there must be at least one number")


def _check_labels(labels: Tensor, rows: int, classes: int, source: str) -> None:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (rows,):
        raise InputError(
            f"{source}: labels are {labels.dtype} of shape {tuple(labels.shape)} for {rows} embeddings; "
            "they must be int64, one per row"
        )
    steps = labels.diff()
    if labels[0] != 0 or ((steps != 0) & (steps != 1)).any() or labels[-1] != classes - 1:
        raise InputError(
            f"{source}: labels must run from 0 to {classes - 1} (there are {classes} class names), sorted "
            "and with no class left out; import the features again"
        )


def _check_finite(
    embeddings: Float[Tensor, "n E"], source: str, original: Int64[np.ndarray, " n"] | None = None
) -> None:
    """Raise if a row is not finite; `original` are the numbers to call the rows by, if they were moved."""
    rows = max(1, _CHUNK // embeddings.shape[1])
    bad = [
        start + int(row)
        for start in range(0, len(embeddings), rows)
        for row in (~torch.isfinite(embeddings[start : start + rows]).all(dim=1)).nonzero()
    ]
    if original is not None:
        bad = sorted(int(original[row]) for row in bad)
    if bad:
        what = "row holds" if len(bad) == 1 else "rows hold"
        raise InputError(
            f"{source}: {len(bad)} {what} numbers that are not finite (row {listed(bad)}); "
            "remove these rows or compute them again"
        )


def class_numbers(
    labels: Sequence[int] | Sequence[str] | np.ndarray | Tensor, source: str
) -> tuple[tuple[str, ...], Int64[np.ndarray, " n"]]:
    """Return the class names in order, and the class of every row.

    Args:
        labels: whole numbers (sorted as numbers) or names (sorted as text).
        source: what messages call them.

    Raises:
        InputError: they are neither.
    """
    if isinstance(labels, Tensor | np.ndarray):
        labels = labels.tolist()
    values: list[Any] = [_plain(label) for label in labels]
    kind = str if values and isinstance(values[0], str) else int
    for row, value in enumerate(values):
        if type(value) is not kind:
            raise InputError(
                f"{source}: the label of row {row} is {value!r:.60}; "
                "labels must be all whole numbers or all names"
            )
        if value == "":
            raise InputError(f"{source}: the label of row {row} is empty; give every class a name")
    number = {value: i for i, value in enumerate(sorted(set(values)))}
    return tuple(str(value) for value in number), np.array([number[value] for value in values], np.int64)


def _plain(label: object) -> object:
    """Return a label as Python's own int or str; leave what is neither."""
    if isinstance(label, bytes):
        return label.decode("utf-8", errors="replace")
    if isinstance(label, str):
        return str(label)
    return label.item() if isinstance(label, np.generic) else label


def _sorted_rows(
    embeddings: Tensor | np.ndarray, order: Int64[np.ndarray, " n"], source: str
) -> Float[Tensor, "n E"]:
    """Return a copy of the rows in the given order, float64 as float32."""
    if isinstance(embeddings, Tensor):
        return stored_rows(embeddings.detach()[torch.from_numpy(order)], source)
    return stored_rows(embeddings[order], source)


def stored_rows(embeddings: Tensor | np.ndarray, source: str) -> Float[Tensor, "n E"]:
    """Return rows as a bank holds them: float64 as float32; all else as it is, and not copied.

    Raises:
        InputError: they are no floating point numbers.
    """
    if isinstance(embeddings, Tensor):
        floating = embeddings.is_floating_point()
    else:
        floating = embeddings.dtype.kind == "f"
    if not floating:
        raise InputError(f"{source}: embeddings are {embeddings.dtype}; they must be floating point numbers")
    if isinstance(embeddings, Tensor):
        return embeddings.float() if embeddings.dtype == torch.float64 else embeddings
    dtype = np.float16 if embeddings.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):  # what overflows is infinite, and the check of finiteness says so
        return torch.from_numpy(embeddings.astype(dtype, copy=False))
