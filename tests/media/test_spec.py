"""`file#page`: which file, which page, and the error for a missing one. The content of a file decides its format."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slime_vlm.media import open_image
from tests.media.failing import failure

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "a.gif"
    first, *others = (Image.new("RGB", (6, 6), colour) for colour in COLOURS)
    first.save(path, save_all=True, append_images=others)
    return path


def test_frames_are_counted_from_one(frames):
    assert [open_image(f"{frames}#{number}").getpixel((3, 3)) for number in (1, 2, 3)] == COLOURS
    assert open_image(frames).getpixel((3, 3)) == COLOURS[0]


def test_missing_page_error_says_how_many_there_are(frames, tmp_path):
    for number in (0, 4):
        line = failure(f"{frames}#{number}")
        assert line == f"{frames}: there is no #{number}, it has 3 pages; ask for #1 to #3"
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    assert "it has one page; ask for #1" in failure(tmp_path / "one.png#2")


def test_existing_file_with_a_hash_in_its_name(tmp_path, frames):
    frames.rename(tmp_path / "a.gif#2")
    assert open_image(tmp_path / "a.gif#2").getpixel((3, 3)) == COLOURS[0]
    assert open_image(tmp_path / "a.gif#2#2").getpixel((3, 3)) == COLOURS[1]
    assert failure(tmp_path / "b.gif#2") == f"{tmp_path / 'b.gif'}: no such file"
    assert failure(tmp_path / "b.gif#x") == f"{tmp_path / 'b.gif#x'}: no such file"


def test_content_decides_not_the_name(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in ("a.pdf", "a.tif", "a.heic", "a.dcm", "a"):
        (tmp_path / "a.png").rename(tmp_path / name)
        assert np.array_equal(np.asarray(open_image(tmp_path / name)), pixels)
        (tmp_path / name).rename(tmp_path / "a.png")


@pytest.mark.parametrize(
    "head", [b"\0\0\0\x18ftypisom\0\0\2\0isommp42", b"\x1a\x45\xdf\xa3webm", b"RIFF\0\0\0\0AVI LIST"]
)
def test_videos_are_recognized(tmp_path, head):
    (tmp_path / "clip").write_bytes(head + bytes(100))
    assert "this is a video, expected an image" in failure(tmp_path / "clip")


def test_avif_needs_no_extra(tmp_path):
    Image.new("RGB", (32, 32), (0, 0, 255)).save(tmp_path / "a.avif")
    red, green, blue = open_image(tmp_path / "a.avif").getpixel((9, 9))
    assert blue > 245
    assert max(red, green) < 10
