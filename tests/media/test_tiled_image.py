"""Large TIFF images that stay in their file give the pixels and answers of whole decoding, a few rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from slime_vlm.errors import ConfigError, MediaError
from slime_vlm.inference import answering
from slime_vlm.media import TiledImage, open_image, open_input, tiled_image
from slime_vlm.media.request import Request
from slime_vlm.media.tiled_image import open_tiled
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from tests.media.failing import absent_in_worker
from tests.tiny_reader import tiny_reader

LAYOUTS = {
    "tiles": {"tile": (64, 96)},
    "strips": {"rowsperstrip": 7},
    "deflate": {"tile": (32, 32), "compression": "deflate", "predictor": True},
    "lzw": {"rowsperstrip": 16, "compression": "lzw"},
    "big": {"tile": (64, 64), "bigtiff": True},
}


@pytest.fixture(autouse=True)
def tile_small_images(monkeypatch):
    monkeypatch.setattr(tiled_image, "LEAST_PIXELS", 1)


def write(path: Path, layout: dict, height: int = 530, width: int = 700, bands: int = 3, **more) -> np.ndarray:
    shape = (height, width, bands) if bands > 1 else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb" if bands > 1 else "minisblack", **layout, **more)
    return pixels


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bands", [1, 3])
def test_regions_equal_whole_decoding(tmp_path, layout, bands):
    pixels = write(tmp_path / "a.tif", LAYOUTS[layout], bands=bands)
    image = open_input(tmp_path / "a.tif")
    assert isinstance(image, TiledImage)
    assert (image.height, image.width, image.size) == (530, 700, (700, 530))
    for box in [(0, 0, 700, 530), (0, 33, 700, 34), (95, 63, 97, 65), (690, 500, 700, 530)]:
        left, top, right, bottom = box
        part = pixels[top:bottom, left:right]
        found = np.asarray(image.crop(box))
        assert np.array_equal(found, part if bands == 3 else np.repeat(part[..., None], 3, axis=-1))


def test_jpeg_colours_are_close_to_pillow(tmp_path):
    soft = Image.effect_noise((90, 70), 60).convert("RGB").resize((720, 560), Image.Resampling.BICUBIC)
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(soft), photometric="rgb", tile=(64, 64), compression="jpeg")
    image = open_input(tmp_path / "a.tif")
    assert isinstance(image, TiledImage)
    whole = np.asarray(open_image(tmp_path / "a.tif")).astype(int)
    assert np.abs(np.asarray(image.crop((0, 0, 720, 560))).astype(int) - whole).max() <= 2


@pytest.mark.parametrize("size", [(530, 700), (2300, 90), (140, 1900)])
def test_views_equal_those_of_whole_decoding(tmp_path, size):
    write(tmp_path / "a.tif", LAYOUTS["tiles"], *size)
    processor = SlimeImageProcessor(view_size=56, max_tiles=40)
    tiled, whole = open_input(tmp_path / "a.tif"), open_image(tmp_path / "a.tif")
    for views in ("both", "global", "local"):
        found, expected = (torch.cat(list(processor.stream_views(image, 8, views))) for image in (tiled, whole))
        assert torch.equal(found, expected), views
    with pytest.raises(ConfigError, match="bicubic"):
        next(SlimeImageProcessor(view_size=56, resample=Image.Resampling.BILINEAR).stream_views(tiled, 8))


def test_answers_and_drawings_equal_whole_decoding(tmp_path):
    write(tmp_path / "a.tif", LAYOUTS["strips"])
    model, processor = tiny_reader()
    tiled, whole = open_input(tmp_path / "a.tif"), open_image(tmp_path / "a.tif")
    found, expected = (answering.ask(model, processor, image, "what?", max_new_tokens=4)[0] for image in (tiled, whole))
    assert found.text == expected.text
    assert np.array_equal(found.kept, expected.kept)
    assert found.draw(tiled).size == expected.draw(whole).size


def test_only_some_rows_are_decoded_at_a_time(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", LAYOUTS["strips"], 4000, 300)
    rows = []
    crop = TiledImage.crop
    monkeypatch.setattr(TiledImage, "crop", lambda self, box: (rows.append(box[3] - box[1]), crop(self, box))[1])
    assert list(SlimeImageProcessor(view_size=56).stream_views(open_input(tmp_path / "a.tif"), 4))
    assert rows
    # One piece, plus the support of the filter on both sides.
    assert max(rows) <= 1024 + 4 * 4000 / 56 + 2


def test_unsupported_layouts_are_decoded_whole(tmp_path):
    for name, layout, more in [
        ("one.tif", {"rowsperstrip": 530}, {}),
        ("high.tif", {"rowsperstrip": 500}, {}),
        ("turned.tif", LAYOUTS["tiles"], {"extratags": [(274, "H", 1, 6, True)]}),
        ("alpha.tif", LAYOUTS["tiles"], {"bands": 4, "extrasamples": ["unassalpha"]}),
        ("nodata.tif", LAYOUTS["tiles"], {"extratags": [(42113, "s", 2, "0", True)]}),
    ]:
        write(tmp_path / name, layout, **more)
        assert isinstance(open_input(tmp_path / name), Image.Image), name
    tifffile.imwrite(tmp_path / "deep.tif", np.ones((300, 300), np.uint16), tile=(32, 32))
    assert isinstance(open_input(tmp_path / "deep.tif"), Image.Image)
    write(tmp_path / "a.tif", LAYOUTS["tiles"])
    assert open_tiled(Request(tmp_path / "a.tif", "a.tif"), least_pixels=530 * 700 + 1) is None
    with absent_in_worker("tifffile"):
        assert isinstance(open_input(tmp_path / "a.tif"), Image.Image)


def test_file_without_tile_sizes_is_decoded_whole(tmp_path):
    pixels = write(tmp_path / "a.tif", {"rowsperstrip": 16})
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].tags[279].offset
    # Renumber the tag, so that the sizes are unknown.
    data[offset : offset + 2] = (65000).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(data)
    found = open_input(tmp_path / "a.tif")
    assert isinstance(found, Image.Image)
    assert np.array_equal(np.asarray(found), pixels)


def test_omitted_tiles_are_black(tmp_path):
    write(tmp_path / "a.tif", LAYOUTS["tiles"])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        tags = file.pages[0].tags
        offsets, sizes = list(tags[324].value), list(tags[325].value)
        offsets[0] = sizes[0] = 0
        tags[324].overwrite(offsets)
        tags[325].overwrite(sizes)
    found = np.asarray(open_image(tmp_path / "a.tif"))
    assert found[:64, :96].max() == 0
    assert found[:64, 96:].max() > 0


def test_pixel_limit_and_missing_page(tmp_path):
    write(tmp_path / "a.tif", LAYOUTS["tiles"])
    with pytest.raises(MediaError, match="the limit is"):
        open_input(tmp_path / "a.tif", max_pixels=1000)
    with pytest.raises(MediaError, match="there is no #2"):
        open_input(f"{tmp_path / 'a.tif'}#2")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="damaged or incomplete"):
        open_input(tmp_path / "cut.tif")


def test_damage_is_reported_when_it_is_reached(tmp_path):
    write(tmp_path / "a.tif", LAYOUTS["deflate"])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[-1]
    data[offset : offset + 40] = bytes(40)
    (tmp_path / "b.tif").write_bytes(data)
    image = open_input(tmp_path / "b.tif")
    image.crop((0, 0, 700, 100))
    with pytest.raises(MediaError, match="damaged or incomplete") as raised:
        image.crop((0, 400, 700, 530))
    assert "\n" not in str(raised.value)
