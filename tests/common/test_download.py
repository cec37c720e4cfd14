"""The downloader, against a server on this machine that behaves well, or badly in one way."""

import base64
import errno
import os
import re
import shutil
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from leo_lightning.common import download as module
from leo_lightning.common.download import download
from leo_lightning.common.errors import InputError
from leo_lightning.common.file_lock import file_lock
from tests.common.server import CONTENT, MD5, Behaviour, serve


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def cut(path: Path, behaviour: Behaviour, url: str) -> None:
    """Download the first 300,000 bytes, as a connection that breaks does."""
    behaviour.cut_after = 300_000
    with pytest.raises(
        InputError, match=r"cut after 300,000 of 1,000,000 bytes; run the same command again"
    ) as caught:
        download(url, path)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    behaviour.cut_after = None


def assert_complete(path: Path, content: bytes = CONTENT) -> None:
    """Check the file, and that nothing lies beside it."""
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_whole_file(tmp_path: Path):
    """Catches bytes lost, or the part file left behind."""
    with serve(Behaviour()) as url:
        assert download(url, tmp_path / "new" / "embeddings.zip") == tmp_path / "new" / "embeddings.zip"
    assert_complete(tmp_path / "new" / "embeddings.zip")


def test_file_that_is_there_is_left_alone(tmp_path: Path):
    """Catches a gigabyte downloaded twice."""
    (tmp_path / "a.zip").write_bytes(b"mine")
    download("http://127.0.0.1:1/a.zip", tmp_path / "a.zip")
    assert_complete(tmp_path / "a.zip", b"mine")


def test_cut_connection_is_continued(tmp_path: Path):
    """Catches a second attempt that starts from the beginning, or repeats or skips bytes."""
    behaviour, path = Behaviour(), tmp_path / "a.zip"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        download(url, path)
    assert behaviour.asked == [None, "bytes=300000-"]
    assert_complete(path)


@pytest.mark.parametrize(
    "later",
    [
        Behaviour(ranges=False),
        Behaviour(wrong_offset=True),
        Behaviour(content=CONTENT[::-1], tag='"two"'),
        Behaviour(content=CONTENT[::-1][:200_000], tag=None),
        Behaviour(content=CONTENT[::-1] + b"more", tag=None),
    ],
    ids=[
        "ignores Range",
        "answers another Range",
        "changed file",
        "shorter file",
        "longer file without a tag",
    ],
)
def test_part_that_does_not_fit_is_dropped(later: Behaviour, tmp_path: Path):
    """Catches the end of one file glued to the beginning of another."""
    behaviour, path = Behaviour(tag=later.tag and '"one"'), tmp_path / "a.zip"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        for name in ("content", "tag", "ranges", "wrong_offset"):
            setattr(behaviour, name, getattr(later, name))
        download(url, path)
    assert_complete(path, later.content)


def test_date_serves_where_the_tag_is_weak(tmp_path: Path):
    """Catches If-Range with a weak tag, which a server must take for a changed file."""
    behaviour = Behaviour(tag='W/"one"', modified="Wed, 01 Jan 2020 00:00:00 GMT")
    path = tmp_path / "a.zip"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        behaviour.tag = None
        download(url, path)
    assert behaviour.asked == [None, "bytes=300000-"]
    assert_complete(path)


def test_part_of_another_address_is_dropped(tmp_path: Path):
    """Catches a part file continued with bytes of another file of the same name."""
    behaviour, path = Behaviour(tag=None), tmp_path / "a.zip"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        download(f"{url}?other", path)
    assert behaviour.asked == [None, None]
    assert_complete(path)


@pytest.mark.parametrize("note", ["", "[]", '{"url": 1, "size": 2, "validator": 3}', '{"url": "x"}'])
def test_part_with_a_damaged_note_is_dropped(note: str, tmp_path: Path):
    """Catches a traceback, or trust in bytes of unknown origin."""
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.zip.part.json").write_text(note)
    with serve(Behaviour()) as url:
        download(url, tmp_path / "a.zip")
    assert_complete(tmp_path / "a.zip")


def test_complete_part_is_only_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a download that starts again because the program died just before the last step."""
    behaviour, path = Behaviour(), tmp_path / "a.zip"
    with serve(behaviour) as url:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda old, new: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                download(url, path)
        download(url, path)
    assert behaviour.asked == [None]
    assert_complete(path)


def test_server_that_does_not_say_the_length(tmp_path: Path):
    """Catches an integer made of a header that is not there."""
    with serve(Behaviour(length=False)) as url:
        download(url, tmp_path / "a.zip")
    assert_complete(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no such file .*404"), (403, "answered 403"), (503, "answered 503"), (416, "answered 416")],
)
def test_refusals_are_one_line_and_leave_nothing(status: int, message: str, tmp_path: Path):
    """Catches HTTPError that escapes, and an error page saved as the file."""
    with serve(Behaviour(status=status)) as url, pytest.raises(InputError, match=message) as caught:
        download(url, tmp_path / "a.zip")
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_unreachable_host(tmp_path: Path):
    """Catches URLError that escapes."""
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(InputError, match=r"cannot be reached \(.*Connection refused"):
            download(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["embeddings.zip", "file:///etc/passwd", "http://", "ftp://host/a", "http://host:port/a"]
)
def test_what_is_no_web_address_is_refused(url: str, tmp_path: Path):
    """Catches a local file read through a file:// address, and ValueError that escapes."""
    with pytest.raises(InputError, match=re.escape(f"'{url}' is not a web address")):
        download(url, tmp_path / "a.zip")


def test_too_little_room_is_said_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a disk filled to the last byte before the user is told."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 5, 5))
    with (
        serve(Behaviour()) as url,
        pytest.raises(InputError, match=r"needs 1,000,000 more bytes and 5 are free"),
    ):
        download(url, tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []


def test_full_disk_keeps_what_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a traceback when somebody else fills the disk meanwhile, and bytes thrown away."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.zip"
    with serve(Behaviour()) as url:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(
                InputError, match=r"cannot be written \(No space left on device\); run the same command again"
            ):
                download(url, path)
        assert (tmp_path / "a.zip.part").stat().st_size == len(CONTENT)
        download(url, path)
    assert_complete(path)


def test_right_checksum(tmp_path: Path):
    """Catches a checksum of part of the file, after a cut, or one that is compared in the wrong form."""
    behaviour, path = Behaviour(), tmp_path / "a.zip"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        download(url, path, MD5)
        download(url, path, MD5)
    assert behaviour.asked == [None, "bytes=300000-"]
    assert_complete(path)


def test_wrong_checksum_leaves_nothing(tmp_path: Path):
    """Catches a damaged file that is kept, or that the next attempt takes for a good beginning."""
    path = tmp_path / "a.zip"
    with (
        serve(Behaviour(content=CONTENT[::-1])) as url,
        pytest.raises(InputError, match=f"damaged on its way, .*, not {MD5}") as caught,
    ):
        download(url, path, MD5)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def damaged(path: Path) -> str | None:
    """The file is the right one if it is as long as the server's."""
    return None if path.stat().st_size == len(CONTENT) else "it is of another length"


@pytest.mark.parametrize("check", [{"md5": MD5}, {"fault": damaged}], ids=["md5", "fault"])
def test_another_file_that_is_there_is_set_aside(
    check: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a file believed because it has the right name, for ever, and somebody's own file removed."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"mine")
    with serve(Behaviour()) as url:
        download(url, path, **check)
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "a.zip.aside").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "a.zip.aside"]
    note = capsys.readouterr().err
    assert note.startswith(f"note: {path}: it")
    assert note.endswith("; set aside as a.zip.aside\n")


def test_another_file_than_asked_for_leaves_nothing(tmp_path: Path):
    """Catches a file kept that the caller cannot read."""
    with (
        serve(Behaviour(b"short")) as url,
        pytest.raises(InputError, match=r"damaged .* \(it is of another length\), and was removed"),
    ):
        download(url, tmp_path / "a.zip", fault=damaged)
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_there_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a cache that must be writable, and the part of a download whose file was brought along."""
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    path.with_name("a.zip.part").touch()
    path.with_name("a.zip.part.json").touch()
    monkeypatch.setattr(module, "file_lock", None)
    download("https://127.0.0.1:1/a.zip", path, MD5)
    assert_complete(path)


def test_one_process_downloads_and_the_others_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches two processes that write into one part file, and a file downloaded twice."""
    path, behaviour = tmp_path / "a.zip", Behaviour()
    with serve(behaviour) as url:
        with file_lock(tmp_path / "a.zip.lock"):
            thread = threading.Thread(target=download, args=(url, path))
            thread.start()
            thread.join(0.2)
            path.write_bytes(CONTENT)
        thread.join(30)
    assert behaviour.asked == []
    assert_complete(path)
    assert capsys.readouterr().err.startswith(
        f"note: {path}: another process downloads it; waiting for its end ("
    )


@pytest.mark.parametrize("right", [False, True])
def test_checksum_that_google_sends(right: bool, tmp_path: Path):
    """Catches a damaged file whose checksum the server has told."""
    behaviour, path = Behaviour(), tmp_path / "a.zip"
    sent = base64.b64encode(bytes.fromhex(MD5 if right else MD5[::-1])).decode()
    behaviour.headers["x-goog-hash"] = f"crc32c=n03x6A==,md5={sent}"
    with serve(behaviour) as url:
        cut(path, behaviour, url)
        if right:
            download(url, path)
            assert_complete(path)
        else:
            with pytest.raises(InputError, match=rf"its MD5 is {MD5}, not {MD5[::-1]}\), and was removed"):
                download(url, path)
            assert os.listdir(tmp_path) == []


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>Sign in &amp;\n\x1b[1m go</title></head></html>"


def test_a_web_page_is_no_file(tmp_path: Path):
    """Catches a login or warning saved as an archive, and good bytes lost because the login has expired."""
    behaviour, path = Behaviour(), tmp_path / "a.zip"
    said = r"zip: the server sent a web page \('Sign in & \?\[1m go'\), not a file; open the address"
    with serve(behaviour) as url:
        for there in ([], ["a.zip.part", "a.zip.part.json"]):
            behaviour.content, behaviour.tag, before = PAGE, None, behaviour.content
            with pytest.raises(InputError, match=said) as caught:
                download(url, path)
            assert "\n" not in str(caught.value)
            assert sorted(os.listdir(tmp_path)) == there
            behaviour.content, behaviour.tag = before, '"one"'
            if not there:
                cut(path, behaviour, url)
        download(url, path)
    assert behaviour.asked[-1] == "bytes=300000-"
    assert_complete(path)


def test_https_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a redirect on which everybody on the way may change the file."""
    plain = urllib.request.urlopen
    with serve(Behaviour()) as url:
        monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: plain(url, timeout=timeout))
        with pytest.raises(InputError, match=f"^https://host/a.zip: leads to {url}, which is not https;"):
            download("https://host/a.zip", tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []
