"""Checksums that Zenodo publishes: https://developers.zenodo.org/#records."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from leo_lightning.common.download import download
from leo_lightning.common.errors import InputError


def zenodo_record(url: str) -> dict[str, str]:
    """Return the MD5 of each file of a record: files[].key, files[].checksum "md5:…" of its JSON.

    Raises:
        InputError: the record cannot be downloaded, or it is something else.
    """
    with TemporaryDirectory() as folder:
        content = download(url, Path(folder, "record.json")).read_bytes()
    try:
        return {file["key"]: file["checksum"].removeprefix("md5:") for file in json.loads(content)["files"]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{url}: is not a record of files and checksums ({type(error).__name__}); check the address, or "
            "try again later"
        ) from None


def zenodo_md5(url: str) -> str | None:
    """Return the MD5 of a file of a record, given its address; None if that is not at Zenodo."""
    match = re.fullmatch(r"(https?://[^/]+)/records?/(\d+)/files/([^/?]+)", url)
    return zenodo_record(f"{match[1]}/api/records/{match[2]}").get(match[3]) if match else None
