"""EmbeddingCache: embeddings of images that were made before, so that the next command need not make them."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import one_line

FILE = "embeddings.sqlite"
_AT_ONCE = 500
"""Keys in a query; SQLite takes 999 at least."""


def default_folder() -> Path:
    """Folder of the cache, where desktop systems keep caches (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "leo-lightning")


def content_digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class EmbeddingCache:
    """Embeddings by the content of an image's file, of one backbone and recipe.

    A cache that cannot be read or written is reported once, and then does nothing.

    Args:
        folder: place of the file `embeddings.sqlite`; None keeps nothing.
        made: text that names all that an embedding depends on, beside its image.
        report: called with a line if the cache cannot be used.
    """

    def __init__(self, folder: Path | None, made: str, report: Callable[[str], None]) -> None:
        self._path = None if folder is None else folder / FILE
        self._made = hashlib.sha256(made.encode()).hexdigest()
        self._report = report

    def find(self, digests: Sequence[str]) -> dict[str, Float[Tensor, " E"]]:
        """Embeddings of those of the images that have one."""

        def read(database: sqlite3.Connection) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            for first in range(0, len(digests), _AT_ONCE):
                some = digests[first : first + _AT_ONCE]
                places = ", ".join("?" * len(some))
                query = f"SELECT image, row FROM embeddings WHERE made = ? AND image IN ({places})"
                for image, row in database.execute(query, (self._made, *some)):
                    found[image] = torch.from_numpy(np.frombuffer(row, np.float32).copy())
            return found

        return self._use(read) or {}

    def add(self, digests: Sequence[str], embeddings: Float[Tensor, "n E"]) -> None:
        """Keep the embeddings of some images; one without a digest is left out."""
        rows = [
            (self._made, digest, row.tobytes())
            for digest, row in zip(digests, embeddings.float().numpy(), strict=True)
            if digest
        ]
        self._use(
            lambda database: database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
        )

    def _use(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work with the file, which is made if it is missing."""
        if self._path is None:
            return None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (made TEXT, image TEXT, row BLOB, "
                    "PRIMARY KEY (made, image))"
                )
                return work(database)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._report(
                f"{self._path}: cannot keep embeddings ({one_line(error)}); remove it, or use --cache none"
            )
            self._path = None
            return None
