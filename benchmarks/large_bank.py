"""A feature file larger than memory: sparse, so that it takes neither time to write nor room on the disk."""

import json
import struct
from pathlib import Path

import numpy as np

from benchmarks.sizes import Sizes
from leo_lightning.data.feature_file import FORMAT, FORMAT_VERSION
from leo_lightning.data.splits import split_path


def save_sparse(root: Path, sizes: Sizes) -> int:
    """Write a training split of zeros and a small validation split; the size of the former in bytes."""
    root.mkdir()
    for split, classes in (("train", sizes.large_classes), ("val", sizes.classes[1])):
        rows = classes * sizes.images
        width = 4 * rows * sizes.embedding_size
        labels = np.arange(classes, dtype=np.int64).repeat(sizes.images)
        header = {
            "__metadata__": {
                "format": FORMAT, "format_version": FORMAT_VERSION, "provenance": "{}",
                "class_names": json.dumps([f"{split}{c}" for c in range(classes)]),
            },
            "embeddings": {
                "dtype": "F32", "shape": [rows, sizes.embedding_size], "data_offsets": [0, width],
            },
            "labels": {"dtype": "I64", "shape": [rows], "data_offsets": [width, width + labels.nbytes]},
        }  # fmt: skip
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with split_path(root, split).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.write(struct.pack("<f", 1.0))  # rows that are all equal would be refused
            file.seek(width - 4, 1)
            file.write(labels.tobytes())
    return split_path(root, "train").stat().st_size
