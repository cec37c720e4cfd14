"""Weights: from files in many formats and from publishers; hostile and damaged ones are refused."""

import gc
import hashlib
import json
import logging
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import timm.models
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models import _registry

from leo_lightning.common.errors import InputError
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import BACKBONE_FILE, Recipe
from leo_lightning.images.backbones.weights import (
    digest,
    known_recipe,
    load_backbone,
    read_backbone,
    save_backbone,
    weights_name,
)
from tests.common.server import Behaviour, serve, serve_site
from tests.images.backbones.networks import conv4, images, random_backbone


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for downloads."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    return folder


def same(one: Backbone, other: Backbone) -> bool:
    x = images(2, one.recipe.image_size, one.recipe.channels)
    with torch.no_grad():
        return torch.equal(one(x), other(x))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(content: object) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def assert_equal(backbone: Backbone, model: torch.nn.Module) -> None:
    """Compare a backbone's weights with the weights of a model that may have a classifier."""
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


# Files


def test_own_file_is_enough_to_embed_again(backbone: Backbone, tmp_path: Path):
    """Catches weights or settings that the file does not keep."""
    unusual = Backbone(replace(backbone.recipe, layer="2", pooling="flatten"), backbone.network).eval()
    save_backbone(unusual, tmp_path / BACKBONE_FILE)
    loaded = read_backbone(tmp_path / BACKBONE_FILE)
    assert loaded.recipe == unusual.recipe
    assert not loaded.training
    assert same(loaded, unusual)
    assert digest(loaded) == digest(backbone)


def test_own_file_can_be_read_by_others(backbone: Backbone, tmp_path: Path):
    """Catches a file that only its owner may read, unlike the features beside it."""
    umask = os.umask(0o022)
    save_backbone(backbone, tmp_path / "a.safetensors")
    os.umask(umask)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_weights_in_another_memory_format_are_the_same(backbone: Backbone, tmp_path: Path):
    """Catches a digest, or a file, that depends on the memory format."""
    before = digest(backbone)
    other = random_backbone(backbone.recipe, 1).to(memory_format=torch.channels_last)
    assert digest(other) == before
    save_backbone(other, tmp_path / "a.safetensors")
    assert digest(read_backbone(tmp_path / "a.safetensors")) == before


def test_digest_sees_every_number():
    """Catches a digest of the first tensor only, or of the names."""
    digests = set()
    for name in [None, "3.normalize.running_var", "0.conv.weight"]:
        changed = conv4(1)
        if name is not None:
            changed.network.state_dict()[name].view(-1)[-1] += 1e-3
        digests.add(digest(changed))
    assert len(digests) == 3


def checkpoint(backbone: Backbone) -> dict[str, Any]:
    """A checkpoint as Lightning writes it in pre-training."""
    weights = {f"backbone.network.{name}": value for name, value in backbone.network.state_dict().items()}
    weights |= {"classifier.weight": torch.ones(5, 8), "backbone.mean": torch.ones(3)}
    return {
        "epoch": 3,
        "global_step": 10,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": OrderedDict(weights),
        "hyper_parameters": {"recipe": asdict(backbone.recipe), "learning_rate": 0.1},
    }


def test_pretraining_checkpoint_has_its_recipe(backbone: Backbone, tmp_path: Path):
    """Catches a checkpoint whose settings must be typed again."""
    torch.save(checkpoint(backbone), tmp_path / "best.ckpt")
    recipe = known_recipe(None, str(tmp_path / "best.ckpt"))
    assert recipe == backbone.recipe
    assert known_recipe("conv-4", str(tmp_path / "best.ckpt")) == recipe
    assert same(load_backbone(recipe, str(tmp_path / "best.ckpt")), backbone)
    line = refusal(lambda: known_recipe("resnet-12", str(tmp_path / "best.ckpt")))
    assert line == (f"{tmp_path}/best.ckpt: holds weights of conv-4, not of resnet-12; leave out --backbone")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights},
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"params": {f"encoder.{name}": value for name, value in weights.items()}},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {f"features.{k}": v for k, v in weights.items()} | {"classifier.bias": torch.ones(5)},
    ],
)
def test_state_dicts_of_others(wrap: Callable[[Any], Any], backbone: Backbone, tmp_path: Path):
    """Catches weights that others have wrapped, or named with a prefix."""
    torch.save(wrap(dict(backbone.network.state_dict())), tmp_path / "a.pt")
    assert known_recipe("conv-4", str(tmp_path / "a.pt")) == Recipe("conv-4")
    assert same(load_backbone(backbone.recipe, str(tmp_path / "a.pt")), backbone)
    line = refusal(lambda: known_recipe(None, str(tmp_path / "a.pt")))
    assert line == f"{tmp_path}/a.pt: does not say which network it belongs to; add --backbone NAME"


def test_safetensors_of_others(backbone: Backbone, tmp_path: Path):
    """Catches safetensors without a recipe taken for a backbone's own file."""
    weights = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    assert known_recipe("conv-4", str(tmp_path / "a.safetensors")) == Recipe("conv-4")
    assert same(load_backbone(backbone.recipe, str(tmp_path / "a.safetensors")), backbone)


@pytest.mark.parametrize(
    ("name", "size", "resize", "mean"),
    [
        ("resnet18", 224, 235, 0.485),
        ("resnet18.tv_in1k", 224, 256, 0.485),
        ("vit_tiny_patch16_224", 224, 248, 0.5),
        ("conv-4", 84, 96, 0.485),
    ],
)
def test_images_are_prepared_as_for_the_network_in_a_file(
    name: str, size: int, resize: int, mean: float, tmp_path: Path
):
    """Catches 84 pixels and ImageNet's mean for a network of timm, which costs 8 points."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    recipe = known_recipe(name, str(tmp_path / "a.pt"))
    assert (recipe.image_size, recipe.resize, recipe.mean[0]) == (size, resize, mean)


def test_timms_own_state_dicts(tmp_path: Path):
    """Catches weights refused because of their classifier."""
    recipe = Recipe("test_resnet", image_size=64, resize=64)
    model = timm.create_model("test_resnet", num_classes=10)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    loaded = load_backbone(recipe, str(tmp_path / "a.pth"))
    assert_equal(loaded, model)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


def test_code_in_a_file_is_not_executed(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches weights that execute code."""
    monkeypatch.chdir(tmp_path)
    weights = dict(backbone.network.state_dict())
    torch.save(weights | {"evil": Hostile()}, "a.pt")
    Path("b.pt").write_bytes(pickle.dumps(weights | {"evil": Hostile()}))
    for name in ("a.pt", "b.pt"):
        assert refusal(partial(known_recipe, None, name)).startswith(f"{name}: ")
        assert refusal(partial(load_backbone, backbone.recipe, name)).startswith(f"{name}: ")
    assert not Path("executed").exists()


NO_WEIGHTS = "PATH: does not hold the state dict of a network; save network.state_dict()"


def broken(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "arrange", "line"),
    [
        ("a.pt", lambda path: None, "PATH: No such file"),
        ("a.safetensors", lambda path: None, "PATH: cannot be read (No such file"),
        ("a.pt", lambda path: path.mkdir(), "PATH: Is a directory"),
        ("a.pt", broken(b""), "PATH: is n"),
        ("a.pt", broken(saved({"a": torch.ones(1000)})[:2000]), "PATH: is n"),
        ("a.safetensors", broken(b""), "PATH: cannot be read (Error while deserializing header"),
        ("a.safetensors", broken(b"x" * 99), "PATH: cannot be read (Error while deserializing header"),
        ("a.pt", broken(saved([1, 2])), NO_WEIGHTS),
        ("a.pt", broken(saved({"a": 1})), NO_WEIGHTS),
        ("a.pt", broken(saved({})), NO_WEIGHTS),
        (
            "a.pt",
            broken(saved(torch.nn.Linear(2, 2).state_dict())),
            "PATH: does not fit conv-4 with these options: it lacks 24 of 24 tensors ('0.normalize.weight', ",
        ),
        (
            "a.pt",
            broken(saved(conv4(options={"hidden_size": 9}).network.state_dict())),
            "PATH: does not fit conv-4 with these options: 0.normalize.weight has the shape (9,), not (8,)",
        ),
    ],
)
def test_bad_files(name: str, arrange: Callable[[Path], object], line: str, tmp_path: Path):
    """Catches tracebacks, and random weights in place of a file's."""
    arrange(tmp_path / name)
    said = refusal(lambda: load_backbone(conv4().recipe, str(tmp_path / name)))
    assert said.replace(str(tmp_path / name), "PATH").startswith(line), said


def test_own_files_of_others(backbone: Backbone, tmp_path: Path):
    """Catches files of a later release, or with a damaged header, that are accepted."""
    path = tmp_path / "a.safetensors"
    save_backbone(backbone, path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path), tmp_path / "later.safetensors", header | {"format_version": "9"})
    save_file(load_file(path), tmp_path / "odd.safetensors", header | {"recipe": "{}"})
    assert refusal(lambda: read_backbone(tmp_path / "later.safetensors")) == (
        f"{tmp_path}/later.safetensors: has backbone format version '9', but this release reads version '1'; "
        "make it again"
    )
    assert refusal(lambda: read_backbone(tmp_path / "odd.safetensors")) == (
        f"{tmp_path}/odd.safetensors: does not say how images become embeddings; make it again"
    )


# What others publish


@pytest.fixture(scope="module")
def published() -> tuple[Backbone, bytes]:
    """A Conv-4 as learn2learn publishes it."""
    network = learn2learn_module("vision.models", "a test").CNN4Backbone(channels=3, max_pool=True)
    backbone = Backbone(Recipe("conv-4", image_size=32, resize=32)).eval()
    backbone.network.load_state_dict(network.state_dict())
    return backbone, saved(network.state_dict())


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Behaviour], str]]:
    """A server in place of learn2learn's."""
    urls = learn2learn_module("vision.models", "a test")._BACKBONE_URLS
    with ExitStack() as stack:

        def run(behaviour: Behaviour) -> str:
            url = stack.enter_context(serve(behaviour))
            monkeypatch.setitem(urls["cifar-fs"]["cnn4"], "default", url)
            return url

        yield run


def learn2learns() -> Backbone:
    return load_backbone(known_recipe("conv-4", "pretrained:cifar-fs"), "pretrained:cifar-fs")


Published = tuple[Backbone, bytes]


def test_learn2learns_weights(published: Published, address: Callable[[Behaviour], str], cache: Path):
    """Catches other weights, another preparation of images, and a second download."""
    behaviour = Behaviour(published[1])
    address(behaviour)
    loaded = learn2learns()
    assert digest(loaded) == digest(published[0])
    assert (loaded.recipe.image_size, loaded.recipe.mean, loaded.recipe.std) == (32, (0.0,) * 3, (1.0,) * 3)
    assert weights_name(loaded, "pretrained:cifar-fs") == "learn2learn cifar-fs"
    learn2learns()
    assert len(behaviour.asked) == 1
    theirs = learn2learn_module("vision.models", "a test").get_pretrained_backbone(
        "cnn4", "cifar-fs", root=str(cache / "hub" / "learn2learn")
    )
    assert torch.equal(theirs.state_dict()["0.conv.weight"], loaded.network.state_dict()["0.conv.weight"])


def test_learn2learns_weights_that_are_cut(
    published: Published, address: Callable[[Behaviour], str], cache: Path
):
    """Catches half a file that counts as all of it, and bytes downloaded twice."""
    content = published[1]
    behaviour = Behaviour(content, cut_after=10_000)
    url = address(behaviour)
    assert refusal(learn2learns) == (
        f"{url}: the connection was cut after 10,000 of {len(content):,} bytes; run the same command again "
        "to continue"
    )
    assert not list(cache.rglob("*.pth"))
    behaviour.cut_after = None
    assert digest(learn2learns()) == digest(published[0])
    assert behaviour.asked == [None, "bytes=10000-"]


OTHER = (
    "URL: the file was damaged on its way, or has changed (it holds no weights), and was removed; run the "
    "same command again to download it anew"
)
PAGE = (
    "URL: the server sent a web page, not a file; open the address in a browser to see what it asks for, or "
    "download the file there"
)


@pytest.mark.parametrize(
    ("behaviour", "line"),
    [
        (Behaviour(status=404), "URL: there is no such file (the server answered 404); check the address"),
        (
            Behaviour(b"<html>please log in</html>"),
            PAGE,
        ),
        (
            Behaviour(saved({"a": Hostile()})),
            OTHER,
        ),
    ],
)
def test_other_downloads_than_weights(
    behaviour: Behaviour, line: str, address: Callable[[Behaviour], str], cache: Path
):
    """Catches the login page of a network kept as weights, which would fail forever."""
    url = address(behaviour)
    assert refusal(learn2learns).replace(url, "URL") == line
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_learn2learns_weights_that_are_damaged(
    published: Published, address: Callable[[Behaviour], str], cache: Path
):
    """Catches a damaged file in the cache that needs the command twice, or stays for ever."""
    address(Behaviour(published[1]))
    learn2learns()
    [path] = cache.rglob("*.pth")
    path.write_bytes(published[1][:-1])
    assert digest(learn2learns()) == digest(published[0])
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.aside"]


@pytest.mark.parametrize("right", [False, True])
def test_learn2learns_weights_have_zenodos_checksum(
    right: bool, published: Published, monkeypatch: pytest.MonkeyPatch, cache: Path
):
    """Catches weights that are not those of their publisher's record, and a record left in the cache."""
    md5 = hashlib.md5(published[1] if right else b"x").hexdigest()
    record = json.dumps({"files": [{"key": "a.pth", "checksum": f"md5:{md5}"}]}).encode()
    site = {"/record/7/files/a.pth": Behaviour(published[1]), "/api/records/7": Behaviour(record)}
    with serve_site(site) as home:
        urls = learn2learn_module("vision.models", "a test")._BACKBONE_URLS
        monkeypatch.setitem(urls["cifar-fs"]["cnn4"], "default", f"{home}/record/7/files/a.pth")
        if right:
            assert digest(learn2learns()) == digest(published[0])
        else:
            assert f", not {md5}), and was removed" in refusal(learn2learns)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == right


def test_learn2learns_weights_for_another_network(published: Published, address: Callable[[Behaviour], str]):
    """Catches options that do not fit the weights, which would end in a traceback."""
    address(Behaviour(published[1]))
    recipe = replace(known_recipe("conv-4", "pretrained:cifar-fs"), options={"hidden_size": 8})
    assert "does not fit conv-4 with these options" in refusal(
        lambda: load_backbone(recipe, "pretrained:cifar-fs")
    )


@pytest.mark.parametrize("weights", ["pretrained", "pretrained:omniglot"])
def test_no_such_weights_of_learn2learns(weights: str):
    """Catches a KeyError where a list of the published weights would help."""
    learn2learn_module("vision.models", "a test")
    assert refusal(lambda: load_backbone(known_recipe("conv-4", weights), weights)) == (
        "learn2learn has weights of conv-4 for cifar-fs and fc100; write --weights pretrained:cifar-fs"
    )


def test_learn2learns_images_of_imagenet():
    """Catches images that are prepared in another way than in learn2learn's benchmark."""
    recipe = known_recipe("wrn-28-10", "pretrained:mini-imagenet")
    assert (recipe.image_size, recipe.resize) == (84, 84)
    assert recipe.mean == pytest.approx((0.4721, 0.4533, 0.4100), abs=1e-4)
    assert recipe.std == pytest.approx((0.2772, 0.2678, 0.2845), abs=1e-4)


@pytest.fixture
def timm_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make timm look elsewhere for the weights of test_resnet."""

    def use(**changes: str) -> None:
        for name in ("test_resnet", "test_resnet.r160_in1k"):
            config = replace(timm.models.get_pretrained_cfg(name), hf_hub_id=None, **changes)
            monkeypatch.setitem(_registry._model_pretrained_cfgs, name, config)

    return use


def timms() -> Backbone:
    return load_backbone(known_recipe("test_resnet", "pretrained"), "pretrained")


def test_timms_weights_from_a_file(timm_weights: Callable[..., None], tmp_path: Path):
    """Catches random weights in place of published ones, and a record with their folder."""
    torch.manual_seed(3)
    model = timm.create_model("test_resnet")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    timm_weights(file=str(tmp_path / "a.pth"))
    loaded = timms()
    assert_equal(loaded, model)
    assert weights_name(loaded, "pretrained") == "timm test_resnet.r160_in1k"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torch.hub leaves the connection of a 404 open
def test_timms_weights_over_the_network(timm_weights: Callable[..., None], cache: Path):
    """Catches half a file that stays in the cache and counts as all of it."""
    content = saved(timm.create_model("test_resnet").state_dict())
    behaviour = Behaviour(content, cut_after=50_000)
    name = f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with serve_site({f"/{name}": behaviour}) as home:
        timm_weights(url=f"{home}/{name}")
        assert refusal(timms).startswith("test_resnet: cannot get its pretrained weights (")
        assert list(cache.rglob("*.pth")) == []
        behaviour.cut_after = None
        assert timms().embedding_size() == 96
        behaviour.status = 404
        timms()  # from the cache
        for path in cache.rglob("*.pth"):
            path.unlink()
        assert refusal(timms) == (
            "test_resnet: cannot get its pretrained weights (HTTP Error 404: Not Found); check the "
            "network, or download them elsewhere and name the file with --weights"
        )
    gc.collect()  # here, and not in another test


@pytest.mark.parametrize(
    ("name", "weights", "line"),
    [
        (None, "pretrained", "pretrained: does not say which network it belongs to; add --backbone NAME"),
        (
            "test_resnett",
            "pretrained",
            "timm has no pretrained weights of test_resnett; did you mean test_resnet?",
        ),
        ("test_vit4", "pretrained", "timm has no pretrained weights of test_vit4; did you mean "),
        ("test_vit.x", "pretrained", "timm has no weights test_vit.x; it has test_vit.r160_in1k"),
        (
            "test_vit",
            "pretrained:mini-imagenet",
            "--weights pretrained:mini-imagenet: for a timm model",
        ),
    ],
)
def test_no_such_weights_of_timms(name: str | None, weights: str, line: str):
    """Catches timm's traceback."""
    said = refusal(lambda: load_backbone(known_recipe(name, weights), weights))
    assert said.startswith(line), said


def test_attempts_of_the_hub_are_not_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Catches a page of warnings about each attempt before the one line."""

    def attempt(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no network")

    recipe = known_recipe("test_resnet", "pretrained")
    monkeypatch.setattr(timm, "create_model", attempt)
    assert "(no network)" in refusal(lambda: load_backbone(recipe, "pretrained"))
    assert caplog.records == []


def test_a_file_called_pretrained(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches an existing file that cannot be named."""
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint(backbone), "pretrained")
    assert known_recipe(None, "pretrained") == backbone.recipe
    assert same(load_backbone(backbone.recipe, "pretrained"), backbone)
    assert weights_name(backbone, "pretrained") == "pretrained"
