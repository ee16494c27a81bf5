"""The memory limit of images that are decoded in this process: what is computed covers what is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slime_vlm.media import open_image, to_rgb
from slime_vlm.media.colours import BAND_PIXELS, boxes, eight_bit
from tests.media.failing import failure

SIDE = 3000
# Buffers and the working copies of a band.
CONSTANT = 40_000_000

_OPENING = """
import sys
from slime_vlm.media import open_image
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
open_image(sys.argv[1])
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
open_image(sys.argv[2], max_memory=int(sys.argv[3]))
print(status("VmHWM") - before)
"""


def images() -> dict[str, tuple[Image.Image, dict, float]]:
    """Images by file name, options of their writer, and the bytes a pixel that the limit counts."""
    grey = Image.linear_gradient("L").resize((SIDE, SIDE))
    rgb = Image.merge("RGB", [grey, grey, grey])
    turned = Image.Exif()
    turned[0x0112] = 6
    fast = {"compress_level": 1}
    return {
        "rgb.png": (rgb, fast, 4),
        "rgba.png": (Image.merge("RGBA", [grey] * 4), fast, 8),
        "la.png": (Image.merge("LA", [grey] * 2), fast, 8),
        "palette.png": (grey.convert("P"), {**fast, "transparency": 3}, 5),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), fast, 6),
        "rgb.jpg": (rgb, {}, 4),
        "progressive.jpg": (rgb, {"progressive": True, "subsampling": 0}, 10),
        "turned.jpg": (grey, {"exif": turned}, 9),
        "alpha.webp": (Image.merge("RGBA", [grey] * 4), {"method": 0}, 20),
        "grey.gif": (grey.convert("P"), {}, 7),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple[Path, int]]:
    """The files, and the bytes that the limit counts for them."""
    folder = tmp_path_factory.mktemp("memory")
    found = {}
    for name, (image, options, pixel_bytes) in images().items():
        image.save(folder / name, **options)
        found[name] = (folder / name, round(SIDE * SIDE * pixel_bytes))
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", images())
def test_what_is_counted_covers_what_is_used(written, name):
    path, counted = written[name]
    command = [sys.executable, "-c", _OPENING, str(path.with_name("small.png")), str(path), str(counted)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    used = int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert used <= counted + CONSTANT


@pytest.mark.parametrize("name", ["rgba.png", "progressive.jpg", "alpha.webp"])
def test_limit_is_checked_before_decoding(written, name):
    path, counted = written[name]
    line = failure(path, max_memory=counted - 1)
    assert line.endswith(f"MB; raise it with --max-memory {-(-counted // 1_000_000)}")


def test_boxes_cover_every_pixel_once():
    for height, width in [(1, 1), (3, BAND_PIXELS), (2, BAND_PIXELS + 5), (1301, 1003)]:
        found = list(boxes(height, width))
        assert sum((right - left) * (bottom - top) for left, top, right, bottom in found) == height * width
        assert all((right - left) * (bottom - top) <= BAND_PIXELS for left, top, right, bottom in found)
        assert max(right for _, _, right, _ in found) == width
        assert max(bottom for *_, bottom in found) == height


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "I;16", "F", "LAB", "P"])
def test_bands_equal_the_whole(monkeypatch, mode):
    noise = np.random.default_rng(0).integers(0, 256, (53, 47, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise.view(np.uint32)[..., 0].astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(noise[..., 0].astype(np.float32) * 7 - 300)
    elif mode == "LAB":
        image = Image.merge("LAB", image.split()[:3])
    elif mode == "P":
        image = image.convert("RGB").convert("P")
        image.info["transparency"] = 7
    else:
        image = image.convert(mode)
    whole = to_rgb(image)
    monkeypatch.setattr("slime_vlm.media.colours.BAND_PIXELS", 200)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(whole))


def test_bands_of_arrays_equal_the_whole(monkeypatch):
    values = np.random.default_rng(0).normal(size=(53, 47, 3)) * 1000
    valid = values[..., 0] > 0
    whole = eight_bit(values, valid=valid)
    monkeypatch.setattr("slime_vlm.media.colours.BAND_PIXELS", 200)
    assert np.array_equal(eight_bit(values, valid=valid), whole)


def test_one_very_long_row(tmp_path):
    Image.new("LA", (3 * BAND_PIXELS, 1), (90, 255)).save(tmp_path / "row.png")
    opened = open_image(tmp_path / "row.png")
    assert opened.size == (3 * BAND_PIXELS, 1)
    assert opened.getextrema() == ((90, 90),) * 3


def test_names_that_cannot_be_files(tmp_path):
    assert failure("x" * 5000) == f"{'x' * 200}: it cannot be opened (File name too long)"
    assert "null byte" in failure("a\0b")
    os.mkfifo(tmp_path / "pipe")
    assert "this is a pipe or a device" in failure(tmp_path / "pipe")
    Image.new("RGB", (3, 2)).save(tmp_path / os.fsdecode(b"\xff\xfe.tif"))
    assert open_image(tmp_path / os.fsdecode(b"\xff\xfe.tif")).size == (3, 2)
