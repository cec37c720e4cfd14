"""Tensors in a plain pickle: their bytes are a torch file, which torch's restricted reader reads."""

import io
import warnings
from typing import Any

import torch
from torch import Tensor

_DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64,
)  # fmt: skip


def storage_of(data: Any) -> object:
    """Read the numbers of a tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about storages with a type
        storage = torch.load(io.BytesIO(bytes(data)), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage) or storage.dtype not in _DTYPES:
        raise ValueError("a tensor holds no plain numbers")
    return storage


def tensor_of(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """Lay a tensor over its numbers; torch checks that it ends within them."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError("a tensor lacks its numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        untyped, numbers = storage.untyped(), storage.size()
        empty = torch.empty(0, dtype=storage.dtype)
        tensor = empty.set_(untyped, int(offset), tuple(size), tuple(stride))
    if tensor.numel() > numbers:
        raise ValueError("a tensor is larger than its numbers")
    return tensor.clone()
