"""Web pages where files were expected: a login, a warning or an error, saved under the file's name."""

import html
import re
from contextlib import suppress
from pathlib import Path

from leo_lightning.common.errors import InputError, printable

START = 2**14
# How browsers recognise a page: https://mimesniff.spec.whatwg.org, section 7.1
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*<"
    rb"(!--|(!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[\s>])",
    re.IGNORECASE,
)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def page_name(start: bytes) -> str | None:
    """Return what to call a web page, by its title, given its first bytes; None for another file."""
    if not _PAGE.match(start):
        return None
    title = _TITLE.search(start[:START])
    words = html.unescape(title[1].decode(errors="replace")).split() if title else []
    return f"a web page ('{printable(' '.join(words))}')" if words else "a web page"


def refuse_page(file: Path | bytes, name: str) -> None:
    """Raise an InputError if a file, or a file that begins with these bytes, is a web page.

    Readers call it when they cannot read a file, so that the user learns the likely reason.
    """
    start = file if isinstance(file, bytes) else b""
    if isinstance(file, Path):
        with suppress(OSError), file.open("rb") as stream:
            start = stream.read(START)
    if page := page_name(start):
        raise InputError(
            f"{name}: is {page}, not a file of this kind; open the address that it came from in a browser, "
            "and download the file again"
        )
