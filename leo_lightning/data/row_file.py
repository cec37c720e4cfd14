"""Rows read from a feature file one by one, for features larger than memory."""

import json
import os
import struct
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError

READERS = 8
"""Reads under way at once: a disk serves several in the time of one."""


class RowFile:
    """The embeddings of a feature file, a row at a time.

    Indexing the mapped file would do the same. But each row that is not in memory yet makes the system read
    its neighbourhood as well, a hundred times as long, and all that was ever read counts as memory of the
    process.

    Args:
        path: the feature file, which `load_bank` has checked.
        embeddings: its embeddings, for their shape and type.
    """

    def __init__(self, path: Path, embeddings: Float[Tensor, "n E"]) -> None:
        self._path, self._file = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        (length,) = struct.unpack("<Q", os.read(self._file, 8))
        self._start: int = (
            8 + length + json.loads(os.read(self._file, length))["embeddings"]["data_offsets"][0]
        )
        self._width = embeddings.shape[1] * embeddings.element_size()
        self._like = embeddings[:0]
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="rows")
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, index: Int64[Tensor, " rows"]) -> Float[Tensor, "rows E"]:
        """Read these rows, as stored.

        Raises:
            InputError: the file has become shorter.
        """
        rows = self._like.new_empty(len(index), self._like.shape[1])
        target = rows.flatten().view(torch.uint8).numpy().data
        file, start, width, numbers = self._file, self._start, self._width, index.tolist()

        def read_some(first: int) -> None:
            for place in range(first, len(numbers), READERS):
                part = target[place * width : (place + 1) * width]
                if os.preadv(file, [part], start + numbers[place] * width) != width:
                    raise InputError(f"{self._path}: is cut short; copy or import it again")

        for _ in self._readers.map(read_some, range(READERS)):
            pass
        return rows
