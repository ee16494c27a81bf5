"""Images of every mode open as the expected RGB, and every bad file gives a one-line error."""

from __future__ import annotations

import io
import random

import numpy as np
import PIL
import pytest
from PIL import EpsImagePlugin, Image, ImageDraw

from slime_vlm.errors import MediaError
from slime_vlm.media import open_image, open_image_bytes, to_rgb


def saved(tmp_path, image: Image.Image, name: str, **options) -> str:
    path = tmp_path / name
    image.save(path, **options)
    return str(path)


def colours(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).round().astype(np.uint8)


def test_rgb_is_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    opened = open_image(saved(tmp_path, Image.fromarray(pixels), "a.png"))
    assert opened.mode == "RGB"
    assert np.array_equal(colours(opened), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :4] = (255, 0, 0)  # the corner that the camera calls row 0, column 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = colours(open_image(saved(tmp_path, Image.fromarray(pixels), "a.png", exif=exif)))
    # By the EXIF standard: where row 0 and column 0 of the stored image are on the upright one.
    top, left = {1: "TL", 2: "TR", 3: "BR", 4: "BL", 5: "TL", 6: "TR", 7: "BR", 8: "BL"}[orientation]
    row, col = (0 if top == "T" else -1), (0 if left == "L" else -1)
    assert opened.shape[:2] == ((8, 16) if orientation <= 4 else (16, 8))
    assert tuple(opened[row, col]) == (255, 0, 0)


def test_transparency_is_blended_with_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[1, 1] = (0, 0, 0, 128)
    opened = colours(open_image(saved(tmp_path, Image.fromarray(pixels), "a.png")))
    assert tuple(opened[0, 0]) == (255, 0, 0)
    assert tuple(opened[3, 3]) == (255, 255, 255)
    assert abs(int(opened[1, 1, 0]) - 127) <= 1


def test_grey_with_alpha(tmp_path):
    pixels = np.zeros((4, 4, 2), np.uint8)
    pixels[0, 0] = (90, 255)
    opened = colours(open_image(saved(tmp_path, Image.fromarray(pixels, "LA"), "a.png")))
    assert tuple(opened[0, 0]) == (90, 90, 90)
    assert tuple(opened[2, 2]) == (255, 255, 255)


def test_palette_with_transparent_colour(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 0, 255, 0])
    image.putpixel((0, 0), 0)
    opened = colours(open_image(saved(tmp_path, image, "a.png", transparency=1)))
    assert tuple(opened[0, 0]) == (0, 0, 255)
    assert tuple(opened[2, 2]) == (255, 255, 255)


YCBCR = pytest.param(
    "YCbCr", marks=pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow 13 reads YCbCr TIFF, older ones say no")
)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", YCBCR, "LAB"])
def test_white_and_black_are_kept_in_every_mode(tmp_path, mode):
    image = Image.new("RGB", (40, 40), "white")
    image.paste("black", (0, 0, 20, 40))
    if mode == "LAB":
        stored = Image.new("LAB", (40, 40), (255, 128, 128))
        stored.paste((0, 128, 128), (0, 0, 20, 40))
    else:
        stored = image.convert(mode)
    opened = colours(open_image(saved(tmp_path, stored, "a.tif")))
    assert opened[20, 5].max() <= 4
    assert opened[20, 35].min() >= 251


def test_cmyk_jpeg(tmp_path):
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red, green, blue = colours(open_image(saved(tmp_path, image, "a.jpg")))[16, 16]
    assert (red > 200, green < 60, blue < 60) == (True, True, True)


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_sixteen_bit_files_keep_their_contrast(tmp_path, suffix, bits):
    eight = gradient()
    deep = (eight.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    opened = colours(open_image(saved(tmp_path, Image.fromarray(deep), f"a.{suffix}")))
    assert np.abs(opened[..., 0].astype(int) - eight).max() <= 1


@pytest.mark.parametrize("low_high", [(0.0, 1.0), (0.0, 255.0), (-3.0, 7.0), (0.0, 1e6)])
def test_float_grey_is_scaled(tmp_path, low_high):
    low, high = low_high
    eight = gradient()
    values = (eight / 255 * (high - low) + low).astype(np.float32)
    opened = colours(open_image(saved(tmp_path, Image.fromarray(values), "a.tif")))
    assert np.abs(opened[..., 0].astype(int) - eight).max() <= 1


def test_thirty_two_bit_grey_beyond_sixteen_bits_is_stretched():
    values = np.array([[-10, 0], [100, 1_000_000]], np.int32)
    assert colours(to_rgb(Image.fromarray(values)))[..., 0].tolist() == [[0, 0], [0, 255]]


def test_constant_and_nan_floats():
    values = np.full((3, 3), 1e9, np.float32)
    values[0, 0] = np.nan
    assert colours(to_rgb(Image.fromarray(values))).shape == (3, 3, 3)


def test_first_frame_is_the_default(tmp_path):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert tuple(colours(open_image(path))[3, 3]) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 200), (1, 5_000)])
def test_extreme_sizes_open(tmp_path, size):
    assert open_image(saved(tmp_path, Image.new("RGB", size, "white"), "a.png")).size == size


def test_truncated_jpeg(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"cut\.jpg: the image is damaged or incomplete"):
        open_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"these are words, not pixels\n" * 9, "not an image"), (b"\x89PNG\r\n\x1a\nrest", "image")],
)
def test_files_that_are_not_images(tmp_path, content, message):
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message) as failure:
        open_image(path)
    assert "\n" not in str(failure.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(MediaError, match="this is a folder"):
        open_image(tmp_path)


def test_pixel_limit_error_says_how_to_raise_it(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (400, 300)), "a.png")
    with pytest.raises(MediaError, match="--max-pixels 120000"):
        open_image(path, max_pixels=100_000)
    assert open_image(path, max_pixels=120_000).size == (400, 300)


def test_pillow_limit_is_not_used(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (400, 300)), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_image(path).size == (400, 300)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_eps_without_ghostscript_says_what_is_missing(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (8, 8), "red"), "a.eps")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", False)
    with pytest.raises(MediaError, match="an EPS file needs Ghostscript, which is not installed; convert it to PNG"):
        open_image(path)


def test_changed_bytes_of_a_png_are_an_error_and_no_black_page() -> None:
    """Nine flipped bits each: looking for the orientation behind the pixels must not hide that they are damaged."""
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).text((20, 50), "page", "black")
    file = io.BytesIO()
    image.save(file, "PNG")
    flips = random.Random(0)
    for _ in range(40):
        content = bytearray(file.getvalue())
        for _ in range(9):
            content[flips.randrange(8, len(content) - 12)] ^= 1 << flips.randrange(8)
        with pytest.raises(MediaError, match=r"damaged or incomplete|not an image"):
            open_image_bytes(bytes(content), "image")
