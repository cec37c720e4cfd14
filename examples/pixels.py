"""Make features of raw pixels, as a baseline without a backbone: python -m examples.pixels IMAGES DST."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from leo_lightning.data.importers.importer import import_features
from leo_lightning.images.decode import read_image
from leo_lightning.images.folder import find_splits

SIZE = 28

if __name__ == "__main__":
    images, dst = Path(sys.argv[1]), Path(sys.argv[2])
    with TemporaryDirectory() as folder:
        for split, pictures in find_splits(images).items():
            rows = [
                read_image(pictures.path(row), 1, SIZE)[0, :SIZE, :SIZE].flatten()
                for row in range(len(pictures))
            ]
            ink = 1 - np.stack(rows).astype(np.float32) / 255  # the drawings are black on white
            np.savez(
                Path(folder, f"{split}.npz"),
                embeddings=ink,
                labels=np.take(pictures.class_names, pictures.labels),
            )
        import_features(Path(folder), dst, dataset=images.name, backbone="none: pixels")
