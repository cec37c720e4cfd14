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
"""Concurrent reads: a disk serves several in the time of one."""


class RowFile:
    """The embeddings of a feature file that `load_bank` has read, a row at a time.

    Indexing the mapped file would give the same rows. But for each row that is not in memory yet, the system
    would also read its neighbourhood, a hundred times as long, and count it as memory of the process.
    """

    def __init__(self, path: Path, embeddings: Float[Tensor, "n E"]) -> None:
        self._path, self._file = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        (length,) = struct.unpack("<Q", os.read(self._file, 8))
        offset: int = json.loads(os.read(self._file, length))["embeddings"]["data_offsets"][0]
        self._start = 8 + length + offset
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
