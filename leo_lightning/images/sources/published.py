"""The files that a data set is published as: downloaded from their server, or brought along."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from leo_lightning.common.download import download, md5_of
from leo_lightning.common.errors import InputError
from leo_lightning.common.web_page import refuse_page
from leo_lightning.common.zenodo import zenodo_record


class File(NamedTuple):
    """One published file."""

    address: str
    """Below the data set's home."""
    md5: str | None = None
    """Its checksum, if it is known in advance; otherwise `record` has it."""
    record: str | None = None
    """Address of a Zenodo record below the home: JSON with the checksums of its files."""
    aliases: tuple[str, ...] = ()
    """Other names under which people keep the file."""

    @property
    def name(self) -> str:
        """Its file name."""
        return self.address.rpartition("/")[2]


def fetch(files: Sequence[File], home: str, folder: Path) -> list[Path]:
    """Download files into `folder`; files that are already there are checked and kept.

    Raises:
        InputError: a download fails (`leo_lightning.common.download`), or a checksum differs.
    """
    records = {file.record for file in files if file.record is not None}
    checksums = {record: zenodo_record(f"{home}/{record}") for record in records}
    paths = []
    for file in files:
        md5 = file.md5 if file.record is None else checksums[file.record].get(file.name)
        if md5 is None:
            raise InputError(f"{home}/{file.record}: does not list '{file.name}'; it may have changed")
        paths.append(download(f"{home}/{file.address}", folder / file.name, md5))
    return paths


def locate(files: Sequence[File], src: Path) -> list[Path]:
    """Find files in the folder `src`; `src` itself may be the only file that is needed.

    Raises:
        InputError: a file is missing, or its checksum is not the published one.
    """
    if not src.exists():
        raise InputError(f"{src}: no such file or folder")
    if src.is_dir():
        paths = [_find(file, src) for file in files]
    elif len(files) == 1:
        paths = [src]
    else:
        raise InputError(f"{src}: is a file; name the folder of {', '.join(file.name for file in files)}")
    for file, path in zip(files, paths, strict=True):
        if file.md5 is not None and (md5 := md5_of(path)) != file.md5:
            refuse_page(path, str(path))
            raise InputError(
                f"{path}: is not the published {file.name} (its MD5 is {md5}, not {file.md5}); download it "
                "again"
            )
    return paths


def _find(file: File, folder: Path) -> Path:
    names = (file.name, *file.aliases)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: has no file {' or '.join(names)}; put it there")
