"""TIFF: exact values of everything that tifffile reads, and the errors without it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import Window, open_image
from slime_vlm.media.opening import open_input
from tests.media.failing import failure, failure_here, opened_here, without


def written(tmp_path, values, name="a.tif", **options):
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(tmp_path / name, values, **options)
    return tmp_path / name


def shown(spec, **options) -> np.ndarray:
    return np.asarray(open_image(spec, **options))


def nodata(value: str) -> dict:
    return {"extratags": [(42113, "s", 0, value, True)]}


@pytest.fixture
def deep():
    return np.array([[0, 257, 514], [25700, 40092, 65535]], np.uint16)


EIGHT = [[0, 1, 2], [100, 156, 255]]


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_sixteen_bit_grey(tmp_path, deep, bigtiff, byteorder):
    path = written(tmp_path, deep, bigtiff=bigtiff, byteorder=byteorder)
    assert shown(path)[..., 0].tolist() == EIGHT
    assert shown(path, window=Window(257, 514))[..., 0].tolist() == [[0, 128, 255], [255, 255, 255]]
    white_is_zero = written(tmp_path, 65535 - deep, "b.tif", photometric="miniswhite")
    assert shown(white_is_zero)[..., 0].tolist() == EIGHT


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_sixteen_bit_colours(tmp_path, compression, planar, tile):
    eight = np.random.default_rng(0).integers(0, 256, (20, 35, 3), dtype=np.uint8)
    eight[0, 0] = 255
    deep = eight.astype(np.uint16) * 257
    if planar == "separate":
        deep = np.moveaxis(deep, -1, 0)
    path = written(
        tmp_path, deep, photometric="rgb", planarconfig=planar, compression=compression, tile=tile, bigtiff=True
    )
    assert np.array_equal(shown(path), eight)


def test_many_bands_show_the_first_three(tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (8, 9, 6), dtype=np.uint8)
    path = written(tmp_path, bands, planarconfig="contig")
    assert np.array_equal(shown(path), bands[..., :3])
    two = written(tmp_path, np.moveaxis(bands[..., :2], -1, 0), "two.tif", planarconfig="separate")
    assert np.array_equal(shown(two)[..., 1], bands[..., 0])


def test_deep_transparency_is_blended_with_white(tmp_path):
    # Red of 0, 0 and 100 in an ink of 1, 0 and 1/5.
    deep = np.array([[[0, 0, 0, 255], [0, 0, 0, 0], [100, 0, 255, 51]]], np.uint16) * 257
    path = written(tmp_path, deep, photometric="rgb", extrasamples=["unassalpha"])
    assert shown(path)[0, :, 0].tolist() == [0, 255, 224]
    deep[..., :3] = deep[..., :3] // 5
    deep[0, 0, 2] = 65535
    premultiplied = written(tmp_path, deep, "b.tif", photometric="rgb", extrasamples=["assocalpha"])
    assert shown(premultiplied)[0, :, 0].tolist() == [0, 255, 224]


def test_nodata_is_white_and_does_not_affect_the_range(tmp_path):
    heights = np.array([[-9999.0, 100.0, 150.0], [200.0, 300.0, np.nan]], np.float32)
    path = written(tmp_path, heights, **nodata("-9999"))
    # From 100 to 300: (150 - 100) / 200 * 255 = 63.75.
    assert shown(path)[..., 0].tolist() == [[255, 0, 64], [128, 255, 255]]
    assert shown(path, window=Window(200, 400))[..., 0].tolist() == [[255, 64, 96], [128, 191, 255]]
    colours = np.array([[[0, 0, 0], [0, 9, 0]]], np.uint8)
    assert shown(written(tmp_path, colours, "b.tif", photometric="rgb", **nodata("0"))).tolist() == [
        [[255, 255, 255], [0, 9, 0]]
    ]
    assert shown(written(tmp_path, np.array([[5, 6]], np.uint8), "c.tif", **nodata("none"))).max() == 6
    all_empty = written(tmp_path, np.full((2, 2), -1, np.int16), "d.tif", **nodata("-1"))
    assert shown(all_empty).min() == 255


def test_overviews_and_masks_are_not_pages(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for value, kind in [(10, 0), (20, 1), (True, 4), (40, 0)]:
            file.write(np.full((4, 4), value, bool if kind == 4 else np.uint16), subfiletype=kind)
    assert [shown(f"{path}#{number}")[0, 0, 0] for number in (1, 2)] == [10, 40]
    assert "#3, it has 2 pages" in failure(f"{path}#3")


@pytest.mark.parametrize("absent", [False, True])
def test_ordinary_pages_need_no_tifffile(tmp_path, monkeypatch, absent):
    if absent:
        without(monkeypatch, "tifffile")
    path = tmp_path / "a.tif"
    sizes = [(6, 4), (8, 3), (5, 5)]
    first, *others = (Image.new("RGB", size, (0, 0, 50 * i)) for i, size in enumerate(sizes))
    first.save(path, save_all=True, append_images=others, compression="tiff_lzw")
    for index, size in enumerate(sizes):
        opened = opened_here(f"{path}#{index + 1}")
        assert (opened.size, opened.getpixel((1, 1))) == (size, (0, 0, 50 * index))
    assert "#4, it has 3 pages" in failure_here(f"{path}#4")


def test_files_that_need_tifffile_name_the_extra(tmp_path, monkeypatch, deep):
    paths = [
        written(tmp_path, np.zeros((8, 8, 3), np.uint16), "deep.tif", photometric="rgb"),
        written(tmp_path, np.zeros((8, 8, 7), np.uint8), "bands.tif", planarconfig="contig"),
        written(tmp_path, np.zeros((8, 8), np.float32), "nodata.tif", **nodata("-1")),
        written(tmp_path, np.zeros((8, 8), np.uint8), "lerc.tif", compression="lerc"),
    ]
    grey = written(tmp_path, deep, "grey.tif")
    without(monkeypatch, "tifffile")
    for path in paths:
        assert failure_here(path).endswith('install it with pip install "slime-vlm[tiff]"')
    assert shown(grey)[..., 0].tolist() == EIGHT


def test_missing_codec_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, np.zeros((40, 40, 3), np.uint16), photometric="rgb", compression="lzw")

    def absent(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", absent)
    assert (
        failure_here(path)
        == f'{path}: a TIFF with LZW compression needs imagecodecs; install it with pip install "slime-vlm[tiff]"'
    )


def test_orientation_is_honoured(tmp_path):
    deep = np.zeros((2, 3), np.uint16)
    deep[0, 0] = 65535
    path = written(tmp_path, deep, extratags=[(274, "H", 1, 6, True)])
    # 6: what is stored as the first row is the right column of the image.
    assert shown(path)[..., 0].tolist() == [[0, 255], [0, 0], [0, 0]]


def test_pixel_limit_is_checked_before_decoding(tmp_path, monkeypatch):
    path = written(tmp_path, np.zeros((30, 40), np.uint16))
    bands = written(tmp_path, np.zeros((30, 40, 100), np.uint16), "bands.tif", planarconfig="contig")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    assert "--max-pixels 1200" in failure_here(path, max_pixels=1000)
    # 200 bytes a pixel, 3 as 8-bit colours, and 8 for the image here and in the process that asked.
    line = failure_here(bands, max_memory=1200 * 211 - 1)
    assert line.endswith("(211 bytes a pixel), the limit is 0 MB; raise it with --max-memory 1")


def test_pages_that_cannot_be_shown(tmp_path):
    assert "complex64 values" in failure(written(tmp_path, np.zeros((4, 4), np.complex64)))
    volume = written(tmp_path, np.zeros((3, 4, 4), np.uint16), "b.tif", volumetric=True)
    assert "one page holds a volume of 3 layers" in failure(volume)


@pytest.mark.parametrize("keep", [6, 60, 900])
def test_truncated_files_give_one_line(tmp_path, capfd, keep):
    values = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    path = written(tmp_path, values, photometric="rgb", compression="lzw", tile=(16, 16))
    path.write_bytes(path.read_bytes()[:keep])
    assert "a.tif: the image is damaged or incomplete" in failure(path)
    assert capfd.readouterr().err == ""


def chain(path, next_of, *, order="little", big=False):
    """Write a TIFF of empty directories, of which number i leads to number next_of[i]; None ends the list."""
    offset_bytes, count_bytes = (8, 8) if big else (4, 2)
    head = (b"II" if order == "little" else b"MM") + (43 if big else 42).to_bytes(2, order)
    head += (8).to_bytes(2, order) + bytes(2) if big else b""
    start, size = len(head) + offset_bytes, count_bytes + offset_bytes
    body = b"".join(
        bytes(count_bytes) + (0 if following is None else start + following * size).to_bytes(offset_bytes, order)
        for following in next_of
    )
    path.write_bytes(head + start.to_bytes(offset_bytes, order) + body)
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("next_of", [[0], [1, 0], [1, 2, 1]], ids=["itself", "two", "later"])
@pytest.mark.parametrize("library", ["tifffile", "pillow"])
def test_pages_that_form_a_loop(tmp_path, monkeypatch, next_of, order, big, library):
    if library == "pillow":
        without(monkeypatch, "tifffile")
    path = chain(tmp_path / "loop.tif", next_of, order=order, big=big)
    assert "loop.tif: its list of pages is a loop" in failure_here(path)
    with pytest.raises(MediaError, match="is a loop"):
        open_input(path)


def test_more_pages_than_any_document_has(tmp_path):
    path = chain(tmp_path / "many.tif", [*range(1, 10_001), None])
    assert "it has more than 10,000 pages" in failure(path)


def test_a_cut_list_of_pages_is_left_to_the_library(tmp_path):
    path = chain(tmp_path / "cut.tif", [1, None])
    path.write_bytes(path.read_bytes()[:-3])
    assert "loop" not in failure(path)
