"""Backbones against the libraries that their networks come from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop

from leo_lightning.common.errors import InputError
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.networks import build_network, set_steps
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import known_recipe
from leo_lightning.images.decode import read_image
from tests.images.backbones.networks import conv4, images, random_backbone
from tests.images.pictures import picture


def normalised(x: Tensor, recipe: Recipe) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    return (x / 255 - mean) / std


def theirs(name: str, ours: Backbone, **options: Any) -> nn.Module:
    """learn2learn's network with the same weights."""
    network = getattr(learn2learn_module("vision.models", "a test"), name)(**options)
    network.load_state_dict(ours.network.state_dict())
    return network.eval()


@pytest.mark.parametrize(
    ("name", "reference", "options", "pooling"),
    [
        ("wrn-28-10", "WRN28Backbone", {}, "mean"),
        ("resnet-12", "ResNet12Backbone", {}, "mean"),
        ("resnet-12", "ResNet12Backbone", {"avg_pool": False}, "flatten"),
        ("conv-4", "CNN4Backbone", {}, "flatten"),
    ],
)
def test_final_layer_is_learn2learns(name: str, reference: str, options: dict[str, Any], pooling: Any):
    """Catches a network that differs from the published one: its last norm, activation or pooling."""
    recipe = Recipe(name, pooling=pooling)
    backbone = random_backbone(recipe)
    x = images(1, 84)
    with torch.no_grad():
        expected = theirs(reference, backbone, **options)(normalised(x, recipe))
        torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"hidden_size": 8, "layers": 2}, {"max_pool": False}, {"layers": 3, "max_pool_factor": 1.5}],
)
def test_conv4_is_learn2learns(options: dict[str, Any]):
    """Catches other names, initial weights or draws: a seed, a checkpoint would mean something else."""
    torch.manual_seed(0)
    mine = build_network("conv-4", 1, options).eval()
    torch.manual_seed(0)
    reference = learn2learn_module("vision.models", "a test").CNN4Backbone(channels=1, **options).eval()
    assert list(mine.state_dict()) == list(reference.state_dict())
    x = images(1, 28)[:, :1] / 255
    with torch.no_grad():
        assert torch.equal(mine(x).flatten(1), reference(x))


def test_few_shot_networks_take_other_images_and_options():
    """Catches learn2learn's last pooling, which fits 84 × 84 pixels only, and ignored options."""
    resnet = {"wider": False, "dropblock_size": 1}
    for name, options in (("resnet-12", resnet), ("conv-4", {"hidden_size": 8}), ("wrn-28-10", {})):
        recipe = Recipe(name, options, channels=1, image_size=28, resize=28, mean=(0.5,), std=(0.5,))
        size = Backbone(recipe).eval().embedding_size()
        assert size == {"resnet-12": 512, "conv-4": 8, "wrn-28-10": 640}[name]


def test_blocks_larger_than_the_maps_they_are_dropped_from():
    """Catches learn2learn's division by zero, and a negative size in the first step of training."""
    learn2learn_module("vision.models", "a test")
    for size, block in ((64, 4), (32, 2)):
        with pytest.raises(
            InputError, match=f"than its maps, 4 × 4; set the option dropblock_size to {block}"
        ):
            Backbone(Recipe("resnet-12", image_size=size, resize=size))


def test_layer_is_what_comes_out_of_a_module():
    """Catches another module's output, a sum over positions, and the module's input."""
    backbone = conv4(layer="1")
    x = images(3, 28)
    with torch.no_grad():
        network: Any = backbone.network
        expected = network[1](network[0](normalised(x, backbone.recipe)))
        torch.testing.assert_close(backbone(x), expected.mean((2, 3)))
        flat = Backbone(conv4(layer="1", pooling="flatten").recipe, backbone.network).eval()
        torch.testing.assert_close(flat(x), expected.flatten(1))
    assert backbone.embedding_size() == 8


def test_layers_beyond_are_not_computed():
    """Catches time spent on layers that nobody needs, and hooks that remain."""
    backbone = conv4(layer="1")
    network: Any = backbone.network
    network[2].register_forward_hook(lambda *_: pytest.fail("computed"))
    backbone(images(1, 28))
    assert not network[1]._forward_hooks


TIMM = {
    "test_resnet": {},
    "test_vit": {"img_size": 64},
    "test_convnext": {},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_final_layer_is_timms_pooling(name: str):
    """Catches features before their norm, or pooled in another way than for the model's classifier."""
    size = TIMM[name].get("img_size", 64)
    recipe = Recipe(name, TIMM[name], image_size=size, resize=size)
    backbone = random_backbone(recipe)
    network: Any = backbone.network
    x = images(2, size)
    with torch.no_grad():
        features = network.forward_features(normalised(x, recipe))
        torch.testing.assert_close(backbone(x), network.forward_head(features, pre_logits=True))


@pytest.mark.parametrize(
    ("name", "layer", "index"),
    [
        ("test_resnet", "layer2", 2),
        ("test_vit", "blocks.2", 2),
        ("test_convnext", "stages.1", 1),
        ("swin_tiny_patch4_window7_224", "layers.0", 0),
    ],
)
def test_layers_are_timms_intermediates(name: str, layer: str, index: int):
    """Catches class tokens averaged with positions, and channels that come last taken for positions."""
    size = TIMM[name].get("img_size", 64)
    recipe = Recipe(name, TIMM[name], image_size=size, resize=size, layer=layer)
    backbone = random_backbone(recipe)
    network: Any = backbone.network
    x = images(2, size)
    with torch.no_grad():
        maps = network.forward_intermediates(
            normalised(x, recipe), indices=[index], intermediates_only=True, output_fmt="NCHW"
        )[0]
        torch.testing.assert_close(backbone(x), maps.mean((2, 3)))


@pytest.mark.parametrize(("width", "height"), [(300, 200), (170, 260)])
@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_images_are_prepared_as_timm_does(name: str, width: int, height: int, tmp_path: Path):
    """Catches another filter, crop or normalization than the weights were trained with."""
    recipe = known_recipe(name, "pretrained")
    picture(5, width, height).save(tmp_path / "a.png")
    backbone = random_backbone(recipe)
    config = timm.data.resolve_model_data_config(backbone.network)
    transform: Any = timm.data.create_transform(**config, is_training=False)
    with Image.open(tmp_path / "a.png") as image:
        expected = transform(image)[None]
    pixels = read_image(tmp_path / "a.png", recipe.channels, recipe.resize, recipe.interpolation)
    seen = center_crop(pixels, [recipe.image_size] * 2)[None]
    torch.testing.assert_close(normalised(seen, recipe), expected)
    with torch.no_grad():
        torch.testing.assert_close(backbone(seen), backbone.network(expected))


def test_measuring_the_size_changes_nothing():
    """Catches random numbers drawn, batch statistics updated, and a mode that is not restored."""
    backbone = random_backbone(conv4().recipe).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    assert backbone.embedding_size() == 8
    assert backbone.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


class Odd(nn.Module):
    """Has a layer that returns a pair, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.LSTM(4, 4)
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(x[:, 0, :, :4])[0]


@pytest.mark.parametrize("layer", ["pair", "unused"])
def test_layers_without_vectors(layer: str):
    """Catches a traceback for a layer that returns several tensors, and one that is not called."""
    backbone = Backbone(Recipe("odd", image_size=8, layer=layer), Odd())
    with pytest.raises(InputError) as caught:
        backbone.embedding_size()
    assert str(caught.value) == (
        f"layer {layer!r} of backbone odd does not return maps, tokens or vectors; choose another"
    )


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (Recipe("wrn-2810"), "there is no backbone 'wrn-2810'; did you mean wrn-28-10?"),
        (Recipe("resnet8"), "there is no backbone 'resnet8'; did you mean resnet"),
        (Recipe("hf-hub:timm/x"), "there is no backbone 'hf-hub:timm/x'; timm.list_models() lists them"),
        (Recipe("conv-4", {"depth": 3}), "backbone conv-4 cannot be built with {'depth': 3}: "),
        (Recipe("conv-4", {"layers": 0}), "backbone conv-4 cannot be built with {'layers': 0}: "),
        (
            Recipe("conv-4", layer="9"),
            "backbone conv-4 has no layer '9'; it has 'final', '0', '0.max_pool', ",
        ),
        (
            Recipe("conv-4", image_size=8, resize=8),
            "backbone conv-4 does not take images of 8 × 8 pixels (",
        ),
        (Recipe("test_vit"), "backbone test_vit does not take images of 84 × 84 pixels (Input height (84)"),
    ],
)
def test_refusals(recipe: Recipe, line: str):
    """Catches tracebacks of other libraries, and an unhelpful line."""
    with pytest.raises(InputError) as caught:
        Backbone(recipe).embedding_size()
    assert str(caught.value).startswith(line), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resnet12_is_told_its_steps():
    """Catches DropBlock that starts over in a resumed run: no state dict has its count."""
    network = build_network("resnet-12", 3, {"wider": False})
    set_steps(network, 40_000)
    counts = {name: getattr(module, "num_batches_tracked", None) for name, module in network.named_modules()}
    blocks = [f"layer{i}.0" for i in range(1, 5)]
    assert [name for name, count in counts.items() if isinstance(count, int)] == blocks
    assert {counts[name] for name in blocks} == {40_000}
    assert counts["layer1.0.bn1"] == 0


def test_the_papers_layer_comes_before_the_last_blocks():
    """Catches a WRN-28-10 whose layer 21 of 28 has another name than the documentation says."""
    network = build_network("wrn-28-10", 3, {})
    convolutions = [
        name for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]  # fmt: skip
    assert len(convolutions) == 25  # and three shortcuts; the classifier makes the rest
    assert [name for name in convolutions if name.startswith("layer3.1")] == convolutions[19:21]
