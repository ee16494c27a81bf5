"""HEIC: main and other images, orientation, limits, and the error without its package."""

from __future__ import annotations

import pillow_heif
import pytest
from PIL import Image

from slime_vlm.media import open_image
from tests.media.failing import failure, failure_here, without

COLOURS = [(200, 30, 10), (10, 20, 220)]


@pytest.fixture
def photo(tmp_path):
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 48), COLOURS[0]))
    file.add_from_pillow(Image.new("RGB", (32, 40), COLOURS[1]))
    path = tmp_path / "photo.heic"
    file.save(path, quality=95, primary_index=1)
    return path


def close(found, expected) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 4


def test_main_image_and_other_images(photo):
    assert open_image(photo).size == (32, 40)
    for number, (size, colour) in enumerate(zip([(64, 48), (32, 40)], COLOURS, strict=True), start=1):
        opened = open_image(f"{photo}#{number}")
        assert (opened.mode, opened.size) == ("RGB", size)
        assert close(opened.getpixel((9, 9)), colour)
    assert "#3, it has 2 images" in failure(f"{photo}#3")


def test_orientation_is_applied_once(tmp_path):
    image = Image.new("RGB", (64, 32), "white")
    image.paste("black", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    opened = open_image(tmp_path / "a.heic")
    assert opened.size == (32, 64)
    assert opened.getpixel((16, 5))[0] < 20
    assert opened.getpixel((16, 59))[0] > 235


def test_pixel_limit_damage_and_missing_package(photo, monkeypatch):
    monkeypatch.setattr(pillow_heif.HeifImage, "to_pillow", lambda *_: pytest.fail("decoded"))
    assert "--max-pixels 1280" in failure_here(photo, max_pixels=1279)
    monkeypatch.undo()
    without(monkeypatch, "pillow_heif")
    assert (
        failure_here(photo) == f'{photo}: a HEIC image needs pillow-heif; install it with pip install "slime-vlm[heic]"'
    )
    monkeypatch.undo()
    whole = photo.read_bytes()
    for keep in (40, 300, len(whole) - 20):
        photo.write_bytes(whole[:keep])
        assert "photo.heic: the image is damaged or incomplete" in failure_here(photo)
