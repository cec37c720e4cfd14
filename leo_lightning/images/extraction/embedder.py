"""Embedder: images in files to embeddings, in batches, while the next images are read."""

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.weights import read_backbone
from leo_lightning.images.decode import read_image
from leo_lightning.images.extraction.views import views

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16"]

BATCH_SIZE = 32
_AHEAD = 2
"""Batches that are read, or waiting to be, while the network is at work on one."""


class Embedded(NamedTuple):
    """A batch of images as embeddings.

    Attributes:
        embeddings: (n, E) in float32, on the CPU.
        unread: why an image could not be read, by its place in the batch; its embedding is of a black one.
    """

    embeddings: Tensor
    unread: dict[int, InputError]

    def unread_rows(self) -> Bool[Tensor, " n"]:
        """Which images could not be read."""
        rows = torch.zeros(len(self.embeddings), dtype=torch.bool)
        rows[list(self.unread)] = True
        return rows


class Embedder:
    """Turns images in files into embeddings, as a backbone's recipe says.

    Images go through the network in batches of a fixed size. What an image becomes depends on nothing but
    the image and its batch's size, up to rounding, and to the last bit on nothing but that and its place in
    the batch: an image that cannot be read is replaced by a black one.

    Args:
        backbone: with its weights; it is moved to the device.
        batch_size: images that go through the network at once.
        workers: threads that read images; None: one for each core that the process may use.
        device: where the network runs; `auto`: on a GPU if there is one.
        precision: float32, or bf16: matrix products in bfloat16, faster on a GPU and of three digits.

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
            raise InputError("device is cuda, and there is no GPU that torch can use; leave it out")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recipe = backbone.recipe
        self.batch_size = batch_size
        self.workers = workers or _cores()
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.embedding_size = backbone.embedding_size()
        # Convolutions are faster so, on a CPU, too; see docs/performance.md.
        self.backbone = backbone.eval().to(self.device).to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path, device: Device = "auto") -> "Embedder":
        """The embedder of a backbone's own file, which `features extract` writes beside the features.

        Raises:
            InputError: see `read_backbone`.
        """
        return cls(read_backbone(path), device=device)

    def embed(self, paths: Sequence[Path]) -> Float[Tensor, "n E"]:
        """Embed images.

        Raises:
            InputError: one cannot be read, or there is none.
        """
        check_least(1, {"number of images": len(paths)})
        found = []
        with closing(self.batches(paths)) as batches:
            for batch in batches:
                for error in batch.unread.values():
                    raise error
                found.append(batch.embeddings)
        return torch.cat(found)

    def batches(self, paths: Sequence[Path]) -> Generator[Embedded, None, None]:
        """Embed images batch by batch, in order; what cannot be read is said in the batch."""
        with closing(self.read_ahead(paths)) as images:
            while batch := list(islice(images, self.batch_size)):
                unread = {place: image for place, image in enumerate(batch) if isinstance(image, InputError)}
                yield Embedded(self.embed_views(torch.stack(self._without_gaps(batch))), unread)

    def embed_views(self, images: UInt8[Tensor, "n V channels S S"]) -> Float[Tensor, "n E"]:
        """Embed images at hand, each the mean over its views.

        Raises:
            InputError: the device's memory is full.
        """
        total = torch.zeros((), device=self.device)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        # TF32, torch's default on a GPU, would have the three digits of bf16
        exact = torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False
        )
        try:
            with torch.inference_mode(), half, exact:
                for view in images.unbind(1):
                    pixels = view.to(self.device).contiguous(memory_format=torch.channels_last)
                    total = total + self.backbone(pixels).float()
        except torch.OutOfMemoryError:
            raise InputError(f"the memory of {self.device} is full; lower batch_size") from None
        return (total / images.shape[1]).cpu()

    def read_ahead(self, paths: Sequence[Path]) -> Generator[Tensor | InputError, None, None]:
        """The views of each image, (V, channels, S, S), in order, or why it cannot be read.

        Threads read while the network is at work; Pillow frees Python's lock meanwhile.
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
        recipe = self.recipe
        try:
            image = read_image(path, recipe.channels, recipe.resize, recipe.interpolation)
        except InputError as error:
            return error
        return views(image, recipe.image_size, recipe.crop)

    def _without_gaps(self, batch: Sequence[Tensor | InputError]) -> list[Tensor]:
        recipe = self.recipe
        number = 10 if recipe.crop == "multiview" else 1
        black = torch.zeros(number, recipe.channels, recipe.image_size, recipe.image_size, dtype=torch.uint8)
        return [black if isinstance(image, InputError) else image for image in batch]


def _cores() -> int:
    """How many cores this process may use, which a job's scheduler may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
