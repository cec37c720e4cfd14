"""`python -m leo_lightning images`: its downloads, its output, and what it leaves behind."""

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leo_lightning.commands.features import AUTHORS_URL
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.images.sources import cifar_fs, mini_imagenet
from tests import tiny_run
from tests.common.server import Behaviour, serve_site
from tests.images import sources
from tests.images.pictures import save


def main(words: list[str]) -> int:
    return tiny_run.main(["images", *words])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.slow
def test_help_is_quick():
    """Catches torch imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys, leo_lightning.commands.images as i; i._parser().format_help(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


MAKERS: dict[str, tuple[Callable[[Path], Path], dict[str, int]]] = {
    "omniglot": (sources.omniglot, {"train": 4, "val": 10, "test": 4}),
    "cifar-fs": (sources.cifar, {"train": 64, "val": 16, "test": 20}),
    "fc100": (sources.cifar, {"train": 60, "val": 20, "test": 20}),
    "mini-imagenet": (sources.mini, {"train": 2, "val": 1, "test": 2}),
    "tiered-imagenet": (sources.tiered, {"train": 2, "val": 1, "test": 2}),
}


def files_of(name: str, folder: Path, patches: pytest.MonkeyPatch) -> dict[str, Behaviour]:
    """Make a data set in `folder`; its files as its server has them."""
    MAKERS[name][0](folder)
    if name.endswith("imagenet"):
        return sources.zenodo(folder)
    return sources.site(sources.publish(folder, patches))


@pytest.mark.parametrize("name", list(MAKERS))
def test_download(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a data set whose files, addresses, checksums and reader do not fit together."""
    files = files_of(name, tmp_path / "src", monkeypatch)
    with serve_site(files) as home:
        assert main(["download", name, str(tmp_path / "out"), "--url", f"{home}/"]) == 0
    classes = sources.classes(tmp_path / "out")
    assert {split: len(names) for split, names in classes.items()} == MAKERS[name][1]
    assert sorted(os.listdir(tmp_path)) == ["out", "src"]
    printed, errors = capsys.readouterr()
    assert errors == ""
    for split, names in classes.items():
        sizes = sorted(names.values())
        numbers = f"{len(names)} classes, {sum(sizes)} images, {sizes[0]} to {sizes[-1]} per class"
        assert f"{tmp_path / 'out' / split}: {numbers}\n" in printed
    assert all(behaviour.asked == [None] for behaviour in files.values())


@pytest.mark.parametrize("name", list(MAKERS))
def test_import_of_files_brought_along(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a data set that needs a network."""
    files_of(name, tmp_path / "src", monkeypatch)
    before = sources.tree(tmp_path / "src")
    assert main(["import", "--dataset", name, str(tmp_path / "src"), str(tmp_path / "out")]) == 0
    classes = sources.classes(tmp_path / "out")
    assert {split: len(names) for split, names in classes.items()} == MAKERS[name][1]
    assert sources.tree(tmp_path / "src") == before


def test_one_archive_may_be_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches an archive that must have its own folder and the published name."""
    sources.publish(sources.cifar(tmp_path / "src"), monkeypatch)
    archive = (tmp_path / "src" / "cifar-100-python.tar.gz").rename(tmp_path / "mine.tgz")
    assert main(["import", "--dataset", "fc100", str(archive), str(tmp_path / "out")]) == 0
    assert archive.is_file()


@pytest.mark.parametrize("name", ["omniglot", "cifar-fs", "fc100"])
def test_other_archives_are_not_opened(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches another archive under the right name, hostile or not, and somebody's file removed."""
    src = tmp_path / "src"
    MAKERS[name][0](src)
    before = sources.tree(src)
    assert main(["import", "--dataset", name, str(src), str(tmp_path / "out")]) == 2
    archive = src / ("images_background.zip" if name == "omniglot" else "cifar-100-python.tar.gz")
    error = capsys.readouterr().err
    assert f"{archive}: is not the published {archive.name} (its MD5 is {sources.md5(archive)}, not " in error
    assert sources.tree(src) == before
    assert os.listdir(tmp_path) == ["src"]


@pytest.mark.parametrize("name", ["omniglot", "mini-imagenet"])
def test_archives_are_kept_with_a_flag(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches archives downloaded again that were kept, and a record kept with them."""
    files = files_of(name, tmp_path / "src", monkeypatch)
    with serve_site(files) as home:
        command = ["download", name, str(tmp_path / "out"), "--url", home, "--keep-archive"]
        assert main(command) == 0
        (tmp_path / "out").rename(tmp_path / "first")
        assert main(command) == 0
    assert sources.tree(tmp_path / "out.download") == sources.tree(tmp_path / "src")
    assert all(
        behaviour.asked == [None] * (2 if path.startswith("/api") else 1) for path, behaviour in files.items()
    )


def test_cut_download_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a download that starts over, or leaves its parts behind."""
    files = files_of("mini-imagenet", tmp_path / "src", monkeypatch)
    slow = files["/records/7978538/files/mini-imagenet-cache-validation.pkl"]
    with serve_site(files) as home:
        command = ["download", "mini-imagenet", str(tmp_path / "out"), "--url", home]
        slow.cut_after = 1000
        assert main(command) == 2
        assert capsys.readouterr().err == (
            f"error: {home}/records/7978538/files/mini-imagenet-cache-validation.pkl: the connection was cut "
            f"after 1,000 of {len(slow.content):,} bytes; run the same command again to continue\n"
        )
        assert sources.tree(tmp_path / "out.download") == [
            "mini-imagenet-cache-train.pkl",
            "mini-imagenet-cache-validation.pkl.part",
            "mini-imagenet-cache-validation.pkl.part.json",
        ]
        assert not (tmp_path / "out").exists()
        slow.cut_after = None
        assert main(command) == 0
    assert slow.asked == [None, "bytes=1000-"]
    assert files["/records/7978538/files/mini-imagenet-cache-train.pkl"].asked == [None]
    assert sorted(os.listdir(tmp_path)) == ["out", "src"]


@pytest.mark.parametrize("name", ["omniglot", "fc100", "tiered-imagenet"])
def test_missing_file_leaves_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a traceback, an error page saved as an archive, and an empty folder."""
    with serve_site({}) as home:
        assert main(["download", name, str(tmp_path / "out"), "--url", home]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {home}/")
        assert error.endswith(": there is no such file (the server answered 404); check the address\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["cifar-fs", "mini-imagenet"])
def test_wrong_checksum_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a damaged archive that is read, or kept for the next attempt."""
    files = files_of(name, tmp_path / "src", monkeypatch)
    for path, behaviour in files.items():
        if not path.startswith("/api"):
            behaviour.content = behaviour.content[:-1] + b"x"
    with serve_site(files) as home:
        assert main(["download", name, str(tmp_path / "out"), "--url", home]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ": the file was damaged on its way, or has changed (its MD5 is " in error
    assert os.listdir(tmp_path) == ["src"]


RECORDS: dict[str, tuple[bytes, str]] = {
    "a page": (b"<html>Log in to the hotel's network</html>", "the server sent a web page, not a file"),
    "a list": (b"[]", "is not a record of files and checksums (TypeError)"),
    "something else": (b"{}", "is not a record of files and checksums (KeyError)"),
    "files without checksums": (
        b'{"files": [{"key": "a"}]}',
        "is not a record of files and checksums (KeyError)",
    ),
    "binary": (b"\xff\xfe\xfd", "is not a record of files and checksums (Unicode"),
    "endless": (b"[" * 10**5, "is not a record of files and checksums (RecursionError)"),
    "other files": (b'{"files": []}', "does not list 'mini-imagenet-cache-train.pkl'; it may have changed"),
}


@pytest.mark.parametrize("name", list(RECORDS))
def test_bad_record_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches gigabytes downloaded without a checksum to compare, and a traceback."""
    content, said = RECORDS[name]
    with serve_site({"/api/records/7978538": Behaviour(content)}) as home:
        assert main(["download", "mini-imagenet", str(tmp_path / "out"), "--url", home]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {home}/api/records/7978538: {said}")
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_full_disk_keeps_what_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches gigabytes thrown away, or half a data set left, because the images do not fit."""
    files = files_of("omniglot", tmp_path / "src", monkeypatch)

    make = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith("Greek"):
            raise OSError(errno.ENOSPC, "No space left on device")
        make(path, *arguments, **options)

    with serve_site(files) as home:
        command = ["download", "omniglot", str(tmp_path / "out"), "--url", home]
        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", mkdir)
            assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path / 'out'}: cannot be written (No space left on device)")
        assert sorted(os.listdir(tmp_path)) == ["out.download", "src"]
        assert sources.tree(tmp_path / "out.download") == ["images_background.zip", "images_evaluation.zip"]
        assert main(command) == 0
    assert all(behaviour.asked == [None] for behaviour in files.values())
    assert sorted(os.listdir(tmp_path)) == ["out", "src"]


@pytest.mark.parametrize("command", ["import", "download"])
def test_ctrl_c_ends_quietly(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a traceback, half a data set, or a download thrown away."""
    files = files_of("cifar-fs", tmp_path / "src", monkeypatch)
    make, seen = Path.mkdir, []

    def interrupt(path: Path, *arguments: Any, **options: Any) -> None:
        seen.append(path)
        if len(seen) == 10:
            raise KeyboardInterrupt
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", interrupt)
    out = str(tmp_path / "out")
    with serve_site(files) as home:
        arguments = {
            "import": ["import", "--dataset", "cifar-fs", str(tmp_path / "src"), out],
            "download": ["download", "cifar-fs", out, "--url", home],
        }
        assert main(arguments[command]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert sorted(os.listdir(tmp_path)) == [*(["out.download"] if command == "download" else []), "src"]


def test_destination_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a data set downloaded in vain, or mixed with another."""
    (tmp_path / "out").mkdir()
    for command in (["download", "omniglot"], ["import", str(tmp_path / "none.npz")]):
        assert main([*command, str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path / 'out'}: already exists; remove it, or name another folder\n"
        )
    assert os.listdir(tmp_path) == ["out"]


def test_missing_splits_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a data set without validation classes and without a note."""
    import numpy as np

    arrays = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.arange(2), "names": np.array(["a", "b"])}
    np.savez(tmp_path / "a.npz", **arrays)
    assert main(["import", str(tmp_path / "a.npz"), str(tmp_path / "out"), "--test", "b"]) == 0
    assert f"note: {tmp_path / 'out'}: has no val split\n" in capsys.readouterr().out


def test_homes_are_those_of_the_publishers():
    """Catches a wrong default address."""
    assert cifar_fs.HOME == "https://www.cs.toronto.edu/~kriz"
    assert mini_imagenet.HOME == "https://zenodo.org"


def test_addresses_that_are_built_in_are_encrypted():
    """Catches files that everybody on the way may change."""
    modules = [importlib.import_module(f"leo_lightning.images.sources.{n.replace('-', '_')}") for n in MAKERS]
    backbones = learn2learn_module("vision.models", "a test")._BACKBONE_URLS.values()
    urls = [url for models in backbones for kinds in models.values() for url in kinds.values()]
    for url in (AUTHORS_URL, *(module.HOME for module in modules), *urls):
        assert url.startswith("https://")


def test_another_file_among_the_archives_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches somebody's own archive removed, and a download that must be asked for twice."""
    files = files_of("omniglot", tmp_path / "src", monkeypatch)
    mine = tmp_path / "out.download" / "images_background.zip"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with serve_site(files) as home:
        assert main(["download", "omniglot", str(tmp_path / "out"), "--url", home]) == 0
    assert "; set aside as images_background.zip.aside\n" in capsys.readouterr().err
    assert sources.tree(tmp_path / "out.download") == ["images_background.zip.aside"]
    assert mine.with_name("images_background.zip.aside").read_bytes() == b"mine"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten classes with 3 to 12 photos each, and a file that is not one; the current folder holds them."""
    for number in range(10):
        for image in range(3 + number):
            save(tmp_path / "photos" / f"c{number}" / f"{image}.png", number)
    (tmp_path / "photos" / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


@pytest.mark.usefixtures("photos")
def test_divide_prints_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches classes that are held out or left out unnamed, and a command that cannot be copied."""
    assert main(["divide", "photos", "my out", "--val", "c9,c8", "--test", "1", "--min-images", "4"]) == 0
    printed, errors = capsys.readouterr()
    assert errors == "note: photos: skipped, not images: 'notes.txt'\n"
    made = sources.classes(tmp_path / "my out")
    assert made["val"] == {"c8": 11, "c9": 12}
    (test, images), *_ = made["test"].items()
    train = sum(made["train"].values())
    assert printed.startswith(
        f"my out/train: 6 classes, {train} images, {min(made['train'].values())} to "
        f"{max(made['train'].values())} per class\n"
        "my out/val: 2 classes, 23 images, 11 to 12 per class\n"
        f"my out/test: 1 classes, {images} images, {images} to {images} per class\n"
        f"val: c8, c9\ntest: {test}\nnote: left out, fewer than 4 images: c0 (3)\n"
    )
    assert "next: " in printed
    assert printed.endswith(
        " features extract --images 'my out' --out 'my out-features' --backbone resnet18 "
        "--weights pretrained\n"
    )
    assert main(["info", "my out"]) == 0
    assert printed.startswith(capsys.readouterr().out)


@pytest.mark.usefixtures("photos")
def test_divide_says_which_tasks_do_not_fit(capsys: pytest.CaptureFixture[str]):
    """Catches a division that the next command refuses, without a word."""
    assert main(["divide", "photos", "out"]) == 0
    printed = capsys.readouterr().out
    assert "note: the smallest split has 2 classes; train with --data.way 2\n" in printed
    assert (
        "note: the smallest class, c0, has 3 images of the 16 for 1-shot tasks with 15 queries; " in printed
    )


@pytest.mark.usefixtures("photos")
def test_info_of_undivided_images(capsys: pytest.CaptureFixture[str]):
    """Catches a refusal where a user wants to see the photos, and a command that does not divide them."""
    assert main(["info", "photos"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "photos: 10 classes, 75 images, 3 to 12 per class, not divided into train, val and test",
        "smallest class: c0, 3 images",
        "largest class: c9, 12 images",
    ]
    assert last.startswith("divide it: ")
    assert last.endswith(" images divide photos DST")
