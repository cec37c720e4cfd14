"""The embedder against torchvision's transforms, and what an embedding must not depend on."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import transforms

from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import read_backbone, save_backbone
from leo_lightning.images.extraction import embedder as module
from leo_lightning.images.extraction.embedder import Embedder
from tests.images.backbones.networks import conv4, random_backbone
from tests.images.pictures import damaged, save


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of several sizes and shapes."""
    folder = tmp_path_factory.mktemp("images")
    return [save(folder / f"{i}.png", i, 30 + 3 * i, 50 - 2 * i) for i in range(7)]


def reference(paths: list[Path], backbone: Backbone) -> torch.Tensor:
    """Embed by torchvision's transforms, one image at a time."""
    recipe = backbone.recipe
    crop: Any = transforms.CenterCrop if recipe.crop == "center" else transforms.TenCrop
    prepare = transforms.Compose(
        [
            transforms.Resize(recipe.resize, transforms.InterpolationMode(recipe.interpolation)),
            crop(recipe.image_size),
        ]
    )
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)])
    network: Any = backbone.network
    embeddings = []
    for path in paths:
        with Image.open(path) as image:
            views = prepare(image.convert("RGB"))
        views = views if isinstance(views, tuple) else (views,)
        with torch.no_grad():
            embeddings.append(network(torch.stack([normalize(view) for view in views])).mean((0, 2, 3)))
    return torch.stack(embeddings)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", ["center", "multiview"])
def test_embeddings_are_those_of_torchvisions_images(crop: str, interpolation: str, paths: list[Path]):
    """Catches another preparation or order of images, and an average of logits or pixels."""
    backbone = conv4(crop=crop, interpolation=interpolation)
    expected = reference(paths, backbone)
    embeddings = Embedder(backbone, batch_size=3, workers=2, device="cpu").embed(paths)
    torch.testing.assert_close(embeddings, expected)
    assert (expected[0] - expected[1]).abs().max() > 0.001


def test_a_transformers_embedding(paths: list[Path]):
    """Catches a timm network that is used in another way than learn2learn's."""
    recipe = Recipe("test_vit", {"img_size": 32}, image_size=32, resize=40)
    backbone = random_backbone(recipe)
    embedder = Embedder(backbone, batch_size=4, device="cpu")
    embeddings = embedder.embed(paths[:2])
    assert embeddings.shape == (2, embedder.embedding_size) == (2, 64)
    torch.testing.assert_close(embeddings[1:], Embedder(backbone, device="cpu").embed(paths[1:2]))


def test_neighbors_do_not_matter(paths: list[Path]):
    """Catches statistics over the batch, and rows that get mixed up."""
    embedder = Embedder(conv4().train(), batch_size=4, workers=2, device="cpu")
    embeddings = embedder.embed(paths[:4])
    others = embedder.embed([paths[4], paths[1], paths[5], paths[3]])
    assert torch.equal(others[[1, 3]], embeddings[[1, 3]])
    assert not torch.equal(others[0], embeddings[0])


def test_order_is_that_of_the_paths(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    """Catches images in the order in which threads read them."""
    expected = Embedder(conv4(), batch_size=2, workers=1, device="cpu").embed(paths)
    read = module.read_image

    def slowly(path: Path, *rest: Any) -> torch.Tensor:
        time.sleep(0.02 * (int(path.stem) % 3))
        return read(path, *rest)

    monkeypatch.setattr(module, "read_image", slowly)
    assert torch.equal(Embedder(conv4(), batch_size=2, workers=4, device="cpu").embed(paths), expected)


def test_damaged_images_do_not_change_others(paths: list[Path], tmp_path: Path):
    """Catches embeddings that depend on a damaged neighbor: a black image takes its place."""
    bad = damaged(tmp_path)["empty"]
    embedder = Embedder(conv4(), batch_size=3, device="cpu")
    good = embedder.embed(paths)
    batches = list(embedder.batches([*paths[:4], bad, *paths[5:]]))
    assert [batch.unread.tolist() for batch in batches] == [[False] * 3, [False, True, False], [False]]
    assert [len(batch.errors) for batch in batches] == [0, 1, 0]
    assert str(batches[1].errors[0]).startswith(f"{bad}: cannot be read as an image")
    embeddings = torch.cat([batch.embeddings for batch in batches])
    assert torch.equal(embeddings[[0, 1, 2, 3, 5, 6]], good[[0, 1, 2, 3, 5, 6]])
    black = tmp_path / "black.png"
    Image.new("RGB", (28, 28)).save(black)
    assert torch.equal(embeddings[4], embedder.embed([*paths[:4], black, paths[5]])[4])


def test_embed_refuses_damaged_images(paths: list[Path], tmp_path: Path):
    """Catches the embedding of a black image in place of a damaged one."""
    embedder = Embedder(conv4(), batch_size=2, device="cpu")
    with pytest.raises(InputError, match="cannot be read as an image"):
        embedder.embed([*paths, damaged(tmp_path)["text"]])
    with pytest.raises(InputError, match="number of images is 0"):
        embedder.embed([])


def test_a_backbones_own_file_is_enough(paths: list[Path], tmp_path: Path):
    """Catches new images that are embedded in another way than the features."""
    backbone = conv4(2, layer="1", crop="multiview")
    expected = Embedder(backbone, device="cpu").embed(paths)
    save_backbone(backbone, tmp_path / "backbone.safetensors")
    stored = read_backbone(tmp_path / "backbone.safetensors")
    assert torch.equal(Embedder(stored, device="cpu").embed(paths), expected)


def test_embeddings_can_be_trained_on(paths: list[Path]):
    """Catches tensors of inference mode, which cannot be part of a graph."""
    embedder = Embedder(conv4(), batch_size=4, device="cpu")
    weight = torch.ones(8, requires_grad=True)
    (embedder.embed(paths) @ weight).sum().backward()
    for batch in embedder.batches(paths):
        (batch.embeddings @ weight).sum().backward()
    assert embedder.backbone.network.training is False


def test_bfloat16_has_three_digits(paths: list[Path]):
    """Catches a precision that is ignored, or results in bfloat16."""
    backbone = conv4()
    exact = Embedder(backbone, device="cpu").embed(paths)
    rough = Embedder(backbone, device="cpu", precision="bf16").embed(paths)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.03 * exact.abs().max()


def test_reading_goes_ahead_but_not_far(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    """Catches all images in memory at once, and images that are read one by one."""
    read, at_once, most, lock = 0, 0, 0, threading.Lock()
    real = module.read_image

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal read, at_once, most
        with lock:
            read, at_once = read + 1, at_once + 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return real(*arguments)

    monkeypatch.setattr(module, "read_image", counted)
    embedder = Embedder(conv4(), batch_size=2, workers=3, device="cpu")
    batches = embedder.batches(paths * 10)
    next(batches)
    time.sleep(0.2)
    assert 4 <= read <= 7
    assert most == 3
    before = threading.active_count()
    batches.close()
    assert threading.active_count() <= before - 3


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch):
    """Catches an empty batch, and a traceback without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: Embedder(conv4(), batch_size=0), "batch_size is 0: it must be at least 1"),
        (lambda: Embedder(conv4(), workers=0), "workers is 0: it must be at least 1"),
        (
            lambda: Embedder(conv4(), device="cuda"),
            "device is cuda, but torch finds no GPU; leave it out",
        ),
        (
            lambda: Embedder(Backbone(replace(conv4().recipe, image_size=4))),
            "backbone conv-4 does not take images of 4 × 4 pixels",
        ),
    ]
    for call, line in refused:
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(line)


def test_a_full_device_says_what_to_do(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    """Catches a traceback where a smaller batch would fit."""
    embedder = Embedder(conv4(), device="cpu")

    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(embedder.backbone, "forward", full)
    with pytest.raises(InputError, match="cpu is out of memory; lower batch_size"):
        embedder.embed(paths)
