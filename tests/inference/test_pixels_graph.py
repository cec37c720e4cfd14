"""Preparation of images as ONNX nodes, against Pillow and torchvision."""

import numpy as np
import onnxruntime
import PIL
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from leo_lightning.images.backbones.recipe import Interpolation, Recipe
from leo_lightning.inference.pixels_graph import preparation

SIZES = [(30, 45), (200, 30), (30, 200), (9, 31), (32, 32), (33, 32), (31, 9), (1, 5), (48, 64), (300, 299)]
if int(PIL.__version__.partition(".")[0]) >= 13:  # earlier releases always begin with the rows
    SIZES += [(70, 33), (300, 60)]


def prepared(recipe: Recipe, images: list[np.ndarray]) -> list[np.ndarray]:
    content = preparation(recipe).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, {"image": image})[0])[0] for image in images]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [27, 32])
def test_the_same_pixels_as_pillows(interpolation: Interpolation, channels: int, side: int):
    """Noise shows every weight. Catches other edges, rounding, order of passes, or place of the crop."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    half = (0.5,) * channels
    recipe = Recipe("", {}, channels, side, 32, interpolation, half, half)
    for image, ours in zip(images, prepared(recipe, images), strict=True):
        picture = Image.fromarray(image).convert("L" if channels == 1 else "RGB")
        theirs = center_crop(resize(picture, [32], InterpolationMode(interpolation)), [side, side])
        np.testing.assert_array_equal(ours, pil_to_tensor(theirs).numpy(), str(image.shape))


def test_gray_images_stay_as_they_are():
    """Catches a luma whose weights do not add up to one."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    recipe = Recipe("", {}, 1, 16, 16, mean=(0.5,), std=(0.5,))
    (ours,) = prepared(recipe, [np.repeat(image[..., None], 3, 2)])
    np.testing.assert_array_equal(ours[0], image)
