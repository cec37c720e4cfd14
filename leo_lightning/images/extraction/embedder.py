"""Embedder: image files to embeddings, batch by batch, while the next images are read."""

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.decode import read_image

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]

BATCH_SIZE = 32
_AHEAD = 2
"""Batches to read ahead while the network works on one."""


class Embedded(NamedTuple):
    """The embeddings of a batch of images.

    Attributes:
        paths: of the images.
        embeddings: (n, E) in float32, on the CPU.
        unread: (n,), images that could not be read; their embeddings are those of black images.
        errors: why they could not be read.
    """

    paths: Sequence[Path]
    embeddings: Tensor
    unread: Tensor
    errors: list[InputError]


class Embedder:
    """Turns image files into embeddings, as a backbone's recipe says.

    Batches have a fixed size, and a black image takes the place of an unreadable one. So an embedding depends
    on its image and the batch size only, up to rounding; exactly, also on its place in the batch.

    Args:
        backbone: with its weights; it is moved to the device.
        batch_size: images per forward pass.
        workers: threads that read images; None: one per core that the process may use.
        device: where the network runs; `auto`: on a GPU if there is one.
        precision: float32, or bf16: matrix products in bfloat16, faster on a GPU, three digits.

    Raises:
        InputError: a number is too small, there is no such device, or the network does not take images of
            the recipe's size.
    """

    def __init__(
        self,
        backbone: Backbone,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        device: Device = "auto",
        precision: Precision = "float32",
    ) -> None:
        check_least(1, {"batch_size": batch_size, "workers": workers})
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device is cuda, but torch finds no GPU; leave it out")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recipe = backbone.recipe
        self.batch_size = batch_size
        self.workers = workers or _cores()
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.embedding_size = backbone.embedding_size()
        # Convolutions are faster in this layout, also on a CPU: see docs/performance-notes.md.
        self.backbone = backbone.eval().to(self.device).to(memory_format=torch.channels_last)

    def embed(self, paths: Sequence[Path]) -> Float[Tensor, "n E"]:
        """Embed images.

        Raises:
            InputError: one cannot be read, or there are none.
        """
        check_least(1, {"number of images": len(paths)})
        embeddings = []
        with closing(self.batches(paths)) as batches:
            for batch in batches:
                if batch.errors:
                    raise batch.errors[0]
                embeddings.append(batch.embeddings)
        return torch.cat(embeddings)

    def batches(self, paths: Sequence[Path]) -> Generator[Embedded, None, None]:
        """Embed images batch by batch, in order; a batch reports the images that could not be read."""
        views = 10 if self.recipe.crop == "multiview" else 1
        size = self.recipe.image_size
        black = torch.zeros(views, self.recipe.channels, size, size, dtype=torch.uint8)
        with closing(self.read_ahead(paths)) as images:
            for first in range(0, len(paths), self.batch_size):
                batch = list(islice(images, self.batch_size))
                errors = [image for image in batch if isinstance(image, InputError)]
                unread = torch.tensor([isinstance(image, InputError) for image in batch])
                embeddings = self.embed_views(
                    torch.stack([black if isinstance(image, InputError) else image for image in batch])
                )
                yield Embedded(paths[first : first + self.batch_size], embeddings, unread, errors)

    def embed_views(self, images: UInt8[Tensor, "n V channels S S"]) -> Float[Tensor, "n E"]:
        """Embed images in memory, averaging over the views of each.

        Raises:
            InputError: the device is out of memory.
        """
        total = torch.zeros((), device=self.device)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        # TF32, torch's default for convolutions on a GPU, would have only three digits, like bf16.
        exact = torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False
        )
        try:
            with torch.inference_mode(), half, exact:
                for view in images.unbind(1):
                    pixels = view.to(self.device).contiguous(memory_format=torch.channels_last)
                    total = total + self.backbone(pixels).float()
        except torch.OutOfMemoryError:
            raise InputError(f"{self.device} is out of memory; lower batch_size") from None
        return (total / images.shape[1]).cpu()

    def read_ahead(self, paths: Sequence[Path]) -> Generator[Tensor | InputError, None, None]:
        """Yield the views of each image, (V, channels, S, S), in order, or why it cannot be read.

        Threads read while the network is at work; Pillow releases Python's lock meanwhile.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="images")
        waiting: deque[Future[Tensor | InputError]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(self._read, path))
                if len(waiting) > _AHEAD * self.batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, path: Path) -> Tensor | InputError:
        from torchvision.transforms.functional import center_crop, ten_crop  # takes seconds

        recipe = self.recipe
        square = [recipe.image_size] * 2
        try:
            image = read_image(path, recipe.channels, recipe.resize, recipe.interpolation)
        except InputError as error:
            return error
        center_only = recipe.crop == "center"
        return torch.stack([center_crop(image, square)] if center_only else ten_crop(image, square))


def _cores() -> int:
    """Return the number of cores that this process may use; a job scheduler may have restricted it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
