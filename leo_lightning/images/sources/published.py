"""The files that a data set is published as: fetched from their server, or carried here by hand."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from leo_lightning.common.download import download, md5_of
from leo_lightning.common.errors import InputError

_MAX_RECORD = 2**24


class File(NamedTuple):
    """One published file."""

    address: str
    """Below the data set's home."""
    md5: str | None = None
    """Its checksum, if it is known from the start; else `record` has it."""
    record: str | None = None
    """Below the home: a record of Zenodo, JSON with the checksums of its files."""
    others: tuple[str, ...] = ()
    """What else the file is called where people keep it."""

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.address.rpartition("/")[2]


def fetch(files: Sequence[File], home: str, folder: Path) -> list[Path]:
    """Download files into `folder`; those that are there already are checked and kept.

    Raises:
        InputError: they cannot be had (`leo_lightning.common.download`), or have another checksum.
    """
    needed = {file.record for file in files if file.record is not None}
    records = {record: _checksums(f"{home}/{record}", folder) for record in needed}
    paths = []
    for file in files:
        md5 = file.md5
        if file.record is not None:
            md5 = records[file.record].get(file.name)
            if md5 is None:
                raise InputError(
                    f"{home}/{file.record}: lists no file '{file.name}' with its MD5; it may have changed"
                )
        paths.append(download(f"{home}/{file.address}", folder / file.name, md5))
    return paths


def _checksums(url: str, folder: Path) -> dict[str, str]:
    """Return the MD5s that a record of Zenodo lists: files[].key, files[].checksum "md5:…"."""
    path = folder / "record.json"
    path.unlink(missing_ok=True)
    try:
        download(url, path)
        if path.stat().st_size > _MAX_RECORD:
            raise ValueError("it is too long")
        files = json.loads(path.read_bytes())["files"]
        sums = {str(file["key"]): str(file["checksum"]) for file in files}
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{url}: is no record of files and checksums ({type(error).__name__}); check the address, or try "
            "again later"
        ) from None
    finally:
        path.unlink(missing_ok=True)
    return {
        name: checksum.removeprefix("md5:")
        for name, checksum in sums.items()
        if re.fullmatch("md5:[0-9a-f]{32}", checksum)
    }


def locate(files: Sequence[File], src: Path) -> list[Path]:
    """Return where files lie in the folder `src`, or `src` itself where it is the one file that is needed.

    Raises:
        InputError: files are missing, or have another checksum than the published ones.
    """
    if not src.exists():
        raise InputError(f"{src}: no such file or folder")
    if src.is_file():
        if len(files) > 1:
            raise InputError(
                f"{src}: is a file; give the folder that holds {', '.join(file.name for file in files)}"
            )
        paths = [src]
    else:
        paths = [_found(file, src) for file in files]
    for file, path in zip(files, paths, strict=True):
        if file.md5 is not None and (found := md5_of(path)) != file.md5:
            raise InputError(
                f"{path}: is not the published {file.name} (its MD5 is {found}, not {file.md5}); copy or "
                "download it again"
            )
    return paths


def _found(file: File, folder: Path) -> Path:
    names = (file.name, *file.others)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: has no file {' or '.join(names)}; put it there")
