"""Images to pixels, against torchvision and Pillow itself."""

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
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


RAMP = np.linspace(0, 1, 400).reshape(20, 20)


def tiff(numbers: bytes, bits: int, kind: int) -> bytes:
    """A TIFF of 20 × 20 pixels; kind: 1 for unsigned, 2 for signed, 3 for floating point numbers."""
    entries = {
        256: 20, 257: 20, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(numbers), 339: kind
    }  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(numbers))
    return start + numbers + struct.pack("<H", len(entries)) + directory + bytes(4)


def png(numbers: np.ndarray, color: int) -> bytes:
    """A PNG of 16 bits; color: 0 for gray, 2 for RGB, 4 for gray with opacity."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20, 20, 16, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def packed_12_bits(numbers: np.ndarray) -> bytes:
    bits = np.unpackbits(numbers.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    return np.packbits(bits).tobytes()


DEEP = {
    "16.png": png(65535 * RAMP, 0),
    "16_color.png": png(65535 * np.stack([RAMP] * 3, 2), 2),
    "16_opacity.png": png(np.stack([65535 * RAMP, np.full((20, 20), 65535)], 2), 4),
    "16.tif": tiff((65535 * RAMP).astype("<u2").tobytes(), 16, 1),
    "12.tif": tiff(packed_12_bits(4095 * RAMP), 12, 1),
    "float.tif": tiff(RAMP.astype("<f4").tobytes(), 32, 3),
    "16.pgm": b"P5 20 20 65535\n" + (65535 * RAMP).astype(">u2").tobytes(),
    "12.pgm": b"P5 20 20 4095\n" + (4095 * RAMP).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", list(DEEP))
def test_more_than_8_bits_are_scaled_by_their_format(name: str, tmp_path: Path):
    """Catches 16 bits clipped to white, and floats and 12 bits that become black."""
    (tmp_path / name).write_bytes(DEEP[name])
    for channels in (1, 3):
        read = read_image(tmp_path / name, channels, 20).numpy().astype(float)
        assert np.abs(read - 255 * RAMP).max() <= 1


BLACK = "it would become black: its numbers stay below"
UNCLEAR = {
    "12_of_16.png": (png(4095 * RAMP, 0), BLACK),
    "12_of_16_color.png": (png(4095 * np.stack([RAMP] * 3, 2), 2), BLACK),
    "12_of_16.tif": (tiff((4095 * RAMP).astype("<u2").tobytes(), 16, 1), BLACK),
    "small_floats.tif": (tiff((RAMP / 99).astype("<f4").tobytes(), 32, 3), BLACK),
    "floats_to_255.tif": (tiff((255 * RAMP).astype("<f4").tobytes(), 32, 3), "are not between 0 and 1"),
    "nan.tif": (tiff(np.full(400, np.nan, "<f4").tobytes(), 32, 3), "are not between 0 and 1"),
    "32.tif": (tiff((255 * RAMP).astype("<u4").tobytes(), 32, 1), "32 bits or a sign"),
    "signed_32.tif": (tiff((255 * RAMP).astype("<i4").tobytes(), 32, 2), "32 bits or a sign"),
    "signed_16.tif": (tiff((255 * RAMP).astype("<i2").tobytes(), 16, 2), "32 bits or a sign"),
}


@pytest.mark.parametrize("name", list(UNCLEAR))
def test_brightness_without_a_range_is_refused(name: str, tmp_path: Path):
    """Catches images that all become black, and their equal embeddings."""
    content, reason = UNCLEAR[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: cannot be read as an image \(.*{reason}"):
        read_image(tmp_path / name, 3, 20)


def test_no_program_is_started_for_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches Ghostscript, which Pillow starts for EPS, also in a file called .jpg."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript would start"))
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(path, 3, 32)


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
