"""The feature file: one FeatureBank as safetensors.

It holds `embeddings` (n, E), `labels` (n,) and, in the header, the class names, the image names and where it
all came from. Reading it executes nothing, and maps it into memory instead of copying it.
"""

import json
import os
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank

FORMAT = "leo-lightning features"
FORMAT_VERSION = "1"
IMPORT_COMMAND = "python -m leo_lightning features import SRC"

_MAX_HEADER = 90_000_000  # safetensors refuses to read a header of more than 100 MB


def load_bank(path: Path) -> FeatureBank:
    """Read a feature file; the embeddings stay on disk, mapped into memory, until they are used.

    Everything is checked except that the embeddings are finite, which would read them all:
    see `FeatureBank.check_finite`.

    Raises:
        InputError: the file is missing, damaged, or not a feature file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `{IMPORT_COMMAND} {path.parent}`")
    try:
        path.open("rb").close()  # safetensors says of a file that may not be read that there is none
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            _check_format(header, path)
            for key in ("embeddings", "labels"):
                if key not in file.keys():
                    raise InputError(f"{path}: has no '{key}'; import the features again")
            embeddings, labels = file.get_tensor("embeddings"), file.get_tensor("labels")
    except SafetensorError as error:
        if "not fully covered" in str(error):
            raise InputError(f"{path}: is cut short; copy or import it again") from None
        raise InputError(f"{path}: is not a safetensors file, or is damaged; import it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return FeatureBank(
        embeddings=embeddings,
        labels=labels,
        class_names=_names(header, "class_names", path),
        image_names=_names(header, "image_names", path) if "image_names" in header else None,
        provenance=_provenance(header, path),
        source=str(path),
    )


def save_bank(bank: FeatureBank, path: Path, name: Path | None = None) -> None:
    """Write the feature file: all of it, or nothing.

    Args:
        bank: what to write.
        path: the file.
        name: what messages call the file, if it will be moved to another place.

    Raises:
        InputError: the folder cannot be written to or is full, or the names do not fit into the header.
    """
    name = name or path
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": json.dumps(bank.class_names),
        "provenance": json.dumps(bank.provenance),
    }
    if bank.image_names is not None:
        header["image_names"] = json.dumps(bank.image_names)
    # The header is JSON itself, so quotes and backslashes in it grow.
    if len(json.dumps(header)) > _MAX_HEADER:
        raise InputError(f"{name}: the image names are too long for the file's header; leave them out")
    tensors = {"embeddings": bank.embeddings.contiguous(), "labels": bank.labels.contiguous()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; safetensors lets only the owner read
        save_file(tensors, temporary, header)
        sort_header(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{name}: cannot be written ({reason})") from None
    finally:
        temporary.unlink(missing_ok=True)


def sort_header(path: Path) -> None:
    """Sort the entries of a safetensors file's header, which its library writes in a random order.

    So the same content is the same file, to the last byte.
    """
    with path.open("rb+") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        assert len(text) == length
        file.seek(8)
        file.write(text)


def _check_format(header: Mapping[str, str], path: Path) -> None:
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path}: is a safetensors file but not a feature file; "
            f"make one with `{IMPORT_COMMAND} {path.parent}`"
        )
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has feature format version {version!r}, and this release reads version "
            f"'{FORMAT_VERSION}'; import the features again"
        )


def _parsed(header: Mapping[str, str], key: str, path: Path) -> object:
    if key not in header:
        raise InputError(f"{path}: the header has no '{key}'; import the features again")
    try:
        return json.loads(header[key])
    except (ValueError, RecursionError):
        raise InputError(f"{path}: '{key}' in the header is not JSON; import the features again") from None


def _names(header: Mapping[str, str], key: str, path: Path) -> tuple[str, ...]:
    names = _parsed(header, key, path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: '{key}' in the header is not a list of names; import the features again")
    return tuple(names)


def _provenance(header: Mapping[str, str], path: Path) -> dict[str, str]:
    provenance = _parsed(header, "provenance", path)
    if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
        raise InputError(
            f"{path}: 'provenance' in the header is not a table of text; import the features again"
        )
    return provenance
