"""Images to pixels, against torchvision and Pillow itself."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from leo_lightning.common.errors import InputError
from leo_lightning.images.decode import quiet_pillow, read_image
from tests.images.pictures import broken_exif, damaged, picture, save


def pixels(image: Image.Image) -> torch.Tensor:
    return functional.pil_to_tensor(image)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(40, 32, 20), (33, 59, 24), (59, 33, 24), (31, 31, 31), (20, 30, 45), (101, 37, 36)],
)
def test_resizing_is_torchvisions(width: int, height: int, side: int, interpolation: str, tmp_path: Path):
    """Catches the longer side taken for the shorter, another rounding, and a filter without antialiasing."""
    picture(1, width, height).save(tmp_path / "a.png")
    mode = transforms.InterpolationMode(interpolation)
    expected = pixels(transforms.Resize(side, mode)(picture(1, width, height)))
    assert torch.equal(read_image(tmp_path / "a.png", 3, side, interpolation), expected)


def test_proportions_of_a_line_are_kept(tmp_path: Path):
    """Catches a side that is rounded to less than the crop."""
    picture(0, 1, 1000).save(tmp_path / "line.png")
    assert read_image(tmp_path / "line.png", 3, 8).shape == (3, 8000, 8)


def test_lines_do_not_fill_the_memory(tmp_path: Path):
    """Catches a file of some bytes that becomes gigabytes when its shorter side grows."""
    picture(0, 1001, 1).save(tmp_path / "line.png")
    with pytest.raises(InputError, match="has 1001 × 1 pixels; crop it, or remove it"):
        read_image(tmp_path / "line.png", 3, 8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_modes_become_color_and_gray(mode: str, tmp_path: Path):
    """Catches an image of another mode read as RGB."""
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    picture(2).convert(mode).save(path)
    with Image.open(path) as stored:
        for channels, name in ((3, "RGB"), (1, "L")):
            assert torch.equal(read_image(path, channels, 32), pixels(stored.convert(name)))


def test_cmyk_keeps_its_colors(tmp_path: Path):
    """Catches inverted inks: read as stored, a red picture would be cyan."""
    Image.new("RGB", (20, 20), (220, 30, 40)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels_read = read_image(tmp_path / "a.jpg", 3, 20).float().mean((1, 2))
    assert (pixels_read - torch.tensor([220.0, 30, 40])).abs().max() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_becomes_white(mode: str, tmp_path: Path):
    """Catches transparent pixels that show a hidden color: black, or the color beneath."""
    image = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
    if mode == "P":
        # One color of a palette may be transparent, or each has an opacity, which is stored in another way.
        image.quantize(2).save(path)
    elif mode == "PA":
        image.save(path)
    else:
        image.convert(mode).save(path)
    pixels_read = read_image(path, 3, 20)
    assert (pixels_read[:, :, :10] == 0).all()
    assert (pixels_read[:, :, 10:] == 255).all()


def test_one_transparent_color_becomes_white(tmp_path: Path):
    """Catches transparency that is a property of the file, not a channel."""
    image = Image.new("L", (20, 20), 7)
    image.paste(100, (0, 0, 10, 20))
    image.save(tmp_path / "a.png", transparency=7)
    pixels_read = read_image(tmp_path / "a.png", 1, 20)
    assert (pixels_read[0, :, :10] == 100).all()
    assert (pixels_read[0, :, 10:] == 255).all()


def test_16_bit_gray_is_scaled(tmp_path: Path):
    """Catches 16 bits clipped to 8, which makes everything white."""
    values = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = torch.from_numpy((values >> 8).astype(np.uint8))
    assert torch.equal(read_image(tmp_path / "a.png", 1, 20)[0], expected)
    assert torch.equal(read_image(tmp_path / "a.png", 3, 20), expected.expand(3, -1, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation: int, tmp_path: Path):
    """Catches EXIF orientation that is ignored, or applied after resizing."""
    turns = {
        1: lambda x: x, 2: lambda x: x.flip(2), 3: lambda x: x.flip(1, 2), 4: lambda x: x.flip(1),
        5: lambda x: x.mT, 6: lambda x: x.rot90(-1, (1, 2)), 7: lambda x: x.flip(1, 2).mT,
        8: lambda x: x.rot90(1, (1, 2)),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(3).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png", 3, 32), turns[orientation](pixels(picture(3))))


def test_broken_exif_does_not_matter(tmp_path: Path):
    """Catches an image refused, or warned about, for a date that nobody needs. ImageNet has such images."""
    broken_exif(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="EXIF"):  # a warning, which is an error in these tests
        read_image(tmp_path / "a.jpg", 3, 32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_pillow()
        assert read_image(tmp_path / "a.jpg", 3, 32).shape[0] == 3
    assert caught == []


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpeg", "png", "ppm", "tif", "webp"])
def test_formats(suffix: str, tmp_path: Path):
    """Catches a suffix that counts as an image and cannot be read."""
    path = save(tmp_path / f"a.{suffix}", 4)
    with Image.open(path) as stored:
        assert torch.equal(read_image(path, 3, 32), pixels(stored.convert("RGB")))


def test_first_frame_of_several(tmp_path: Path):
    """Catches the last frame of an animation, or a failure."""
    picture(1).save(tmp_path / "a.gif", save_all=True, append_images=[picture(2)])
    with Image.open(tmp_path / "a.gif") as stored:
        assert torch.equal(read_image(tmp_path / "a.gif", 3, 32), pixels(stored.convert("RGB")))


def test_damaged_files_are_refused_by_name(tmp_path: Path):
    """Catches half an image that is gray below, and Pillow's own exceptions."""
    for path in damaged(tmp_path).values():
        with pytest.raises(InputError) as caught:
            read_image(path, 3, 32)
        line = str(caught.value)
        assert line.startswith(f"{path}: cannot be read as an image ("), line
        assert line.endswith("); replace or remove it")
        assert line.count(str(path)) == 1
        assert "\n" not in line


def test_images_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a file of some bytes that becomes gigabytes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(save(tmp_path / "a.png"), 3, 32)


def test_missing_files_are_refused(tmp_path: Path):
    """Catches a missing file called a damaged image."""
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/a.png: cannot be read as an image (No such")):
        read_image(tmp_path / "a.png", 3, 32)
