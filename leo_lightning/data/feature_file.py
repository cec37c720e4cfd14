"""The feature file: one FeatureBank as safetensors.

It holds `embeddings` (n, E), `labels` (n,) and, in the header, the class names, the image names and the
provenance. Reading it executes nothing, and maps it into memory instead of copying it.
"""

import json
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from leo_lightning.common.errors import InputError, one_line, without_controls
from leo_lightning.common.program import program
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.bank import FeatureBank

FORMAT = "leo-lightning features"
FORMAT_VERSION = "1"

_MAX_HEADER = 90_000_000  # safetensors refuses to read a header of more than 100 MB


def load_bank(path: Path) -> FeatureBank:
    """Read a feature file; the embeddings stay on disk, mapped into memory, until they are used.

    Everything is checked except that the embeddings are finite, which would read them all
    (`FeatureBank.check_finite` does).

    Raises:
        InputError: the file is missing, damaged, or not a feature file.
        OSError: it may not be read.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; make it with `{program()} features import SRC {path.parent}`"
        )
    path.open("rb").close()  # says if it may not be read; safetensors would call it missing
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if (header.get("format"), header.get("format_version")) != (FORMAT, FORMAT_VERSION):
                raise InputError(
                    f"{path}: is not a feature file of version {FORMAT_VERSION}; "
                    f"make one with `{program()} features import SRC {path.parent}`"
                )
            embeddings, labels = file.get_tensor("embeddings"), file.get_tensor("labels")
    except SafetensorError as error:
        refuse_page(path, str(path))
        raise InputError(
            f"{path}: is damaged, or not a safetensors file ({one_line(error)}); copy or import it again"
        ) from None
    return FeatureBank(
        embeddings=embeddings,
        labels=labels,
        class_names=tuple(_parsed(header, "class_names", list, path)),
        image_names=tuple(_parsed(header, "image_names", list, path)) if "image_names" in header else None,
        provenance=_parsed(header, "provenance", dict, path),
        source=str(path),
    )


def _parsed(header: Mapping[str, str], key: str, container: type[list | dict], path: Path) -> Any:
    """Return a list or table of text out of the header, without control characters."""
    content: Any = None
    with suppress(KeyError, ValueError, RecursionError):
        content = json.loads(header[key])
    texts = content.values() if isinstance(content, dict) else content
    if type(content) is not container or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: '{key}' in the header is missing or damaged; import the features again")
    if isinstance(content, dict):
        return {without_controls(name): without_controls(text) for name, text in content.items()}
    return list(map(without_controls, content))


def save_bank(bank: FeatureBank, path: Path) -> None:
    """Write the feature file; to replace an older one safely, write to a `whole_file`, as `save_splits` does.

    Raises:
        OSError: the file cannot be written.
        InputError: the names do not fit into the header.
    """
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": json.dumps(bank.class_names),
        "provenance": json.dumps(bank.provenance),
    }
    if bank.image_names is not None:
        header["image_names"] = json.dumps(bank.image_names)
    if len(json.dumps(header)) > _MAX_HEADER:  # the header is JSON itself, so quotes and backslashes grow
        raise InputError(f"{bank.source}: the image names are too long for a feature file; leave them out")
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; safetensors lets only the owner read
    try:
        save_file(
            {"embeddings": bank.embeddings.contiguous(), "labels": bank.labels.contiguous()}, path, header
        )
    except SafetensorError as error:
        raise OSError(str(error)) from None
    sort_header(path)
    path.chmod(mode)


def sort_header(path: Path) -> None:
    """Sort the entries of a safetensors file's header, which its library writes in a random order.

    The same content then is the same file, to the last byte. It is on the disk when this returns.
    """
    with path.open("rb+") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        assert len(text) == length
        file.seek(8)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
