"""Embeddings of images that are kept between commands."""

import sqlite3
from pathlib import Path

import pytest
import torch

from leo_lightning.inference.embedding_cache import FILE, EmbeddingCache, content_digest, default_folder


def test_rows_come_back_to_the_bit(tmp_path: Path):
    """Catches rows that are rounded, mixed up, or lost when there are more than SQLite takes at once."""
    rows, names = torch.randn(1203, 5), [f"{number:x}" for number in range(1203)]
    EmbeddingCache(tmp_path, "a", print).add(names, rows)
    found = EmbeddingCache(tmp_path, "a", print).find([*names[::-1], "unknown"])
    assert list(found.keys() - set(names)) == []
    assert torch.equal(torch.stack([found[name] for name in names]), rows)


def test_another_recipe_finds_nothing(tmp_path: Path):
    """Catches embeddings of one network that are taken for those of another."""
    EmbeddingCache(tmp_path, "a", print).add(["x"], torch.ones(1, 2))
    assert EmbeddingCache(tmp_path, "b", print).find(["x"]) == {}


def test_an_unreadable_image_is_not_kept(tmp_path: Path):
    """Catches all unreadable files sharing one embedding."""
    assert content_digest(tmp_path / "nowhere.png") == ""
    cache = EmbeddingCache(tmp_path, "a", print)
    cache.add(["", "x"], torch.ones(2, 2))
    assert cache.find(["", "x"]).keys() == {"x"}


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a file that was not asked for."""
    monkeypatch.chdir(tmp_path)
    cache = EmbeddingCache(None, "a", print)
    cache.add(["x"], torch.ones(1, 2))
    assert cache.find(["x"]) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["text", "another table", "folder"])
def test_a_damaged_cache_is_reported_once(damage: str, tmp_path: Path):
    """Catches a command that ends, or repeats itself for every batch, since its cache cannot be used."""
    path = tmp_path / FILE
    if damage == "text":
        path.write_text("not a database" * 100)
    elif damage == "folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE embeddings (image TEXT)")
    said: list[str] = []
    cache = EmbeddingCache(tmp_path, "a", said.append)
    assert cache.find(["x"]) == {}
    cache.add(["x"], torch.ones(1, 2))
    assert len(said) == 1
    assert said[0].startswith(f"{path}: cannot keep embeddings (")


def test_the_default_folder_is_that_of_caches(monkeypatch: pytest.MonkeyPatch):
    """Catches files in the home folder itself, and a variable that is not heeded."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/leo-lightning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.cache/leo-lightning")
