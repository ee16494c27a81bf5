"""Videos: which frames are taken and when they are shown, rotation, damage, limits, and the error without PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import Clip, is_video, open_clip, open_image, open_input
from slime_vlm.media.decoding import read_frames
from slime_vlm.media.request import Request
from slime_vlm.media.video import middle_frames
from tests.media.failing import failure_here, without


def write_clip(
    path: Path,
    count: int,
    size: tuple[int, int] = (48, 64),
    rate: int = 10,
    codec: str = "mpeg4",
    times: list[int] | None = None,
) -> Path:
    """Write a video whose frame i has the grey value 10 + 5 i, brighter in its upper left quarter.

    The size is (height, width). Frames follow each other, or are shown at `times` in units of 1 / rate.
    """
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", 5
        stream.time_base, stream.bit_rate = Fraction(1, rate), 20_000_000
        for number in range(count):
            pixels = np.full((height, width, 3), 10 + 5 * number, np.uint8)
            pixels[: height // 2, : width // 2] += 60
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(clip: Clip) -> list[int]:
    """Return which frames of `write_clip` these are, by the grey of their lower right corner."""
    return [round((np.asarray(frame)[-9:, -9:].mean() - 10) / 5) for frame in clip.frames]


def video_failure(*args, **options) -> str:
    with pytest.raises(MediaError) as raised:
        open_clip(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("video") / "clip.mp4", 32)


def test_middles_of_equal_spans():
    assert middle_frames(list(range(32)), 8) == [2, 6, 10, 14, 18, 22, 26, 30]
    assert middle_frames(list(range(-5, 5)), 4) == [1, 3, 6, 8]
    assert middle_frames([0, 10, 20], 8) == [0, 1, 2]
    assert middle_frames(list(range(9)), 1) == [4]
    # Four short frames, then a long one. Spans are equal in time, and no frame is taken twice.
    assert middle_frames([0, 1, 2, 3, 12], 3) == [2, 3, 4]
    assert middle_frames([0, 1, 2, 3, 100], 3) == [3, 4]


def test_frames_are_spread_over_the_video(clip_file):
    clip = open_clip(clip_file)
    assert numbers(clip) == [2, 6, 10, 14, 18, 22, 26, 30]
    assert clip.seconds == [0.2, 0.6, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0]
    assert {frame.size for frame in clip.frames} == {(64, 48)}
    assert numbers(open_clip(clip_file, num_frames=2)) == [8, 24]


def test_spans_are_equal_in_time(tmp_path):
    times = [*range(16), 60, 100, 140]
    clip = open_clip(write_clip(tmp_path / "a.mkv", len(times), times=times), num_frames=4)
    # 19 frames that are shown for 7.8 each on average: the middles are at 18.5, 55.4, 92.4 and 129.3.
    assert numbers(clip) == [15, 16, 17]
    assert clip.seconds == [1.5, 6.0, 10.0]


def test_a_single_frame(tmp_path):
    clip = open_clip(write_clip(tmp_path / "a.mp4", 1))
    assert (numbers(clip), clip.seconds) == ([0], [0.0])


def test_cover_image_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height = cover.width = 16
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_image(Image.new("RGB", (16, 16))).reformat(format="yuvj420p")))
        container.mux(cover.encode())
    assert "a cover image" in video_failure(tmp_path / "song.mp4")


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video"), ("a.mov", "mpeg4")]
)
def test_other_containers(tmp_path, name, codec):
    path = write_clip(tmp_path / name, 24, rate=25, codec=codec)
    assert is_video(path)
    assert numbers(open_clip(path, num_frames=4)) == [3, 9, 15, 21]


def test_a_short_video_gives_all_its_frames(tmp_path):
    assert numbers(open_clip(write_clip(tmp_path / "a.mp4", 3))) == [0, 1, 2]


def test_rotation_tag_of_phones_is_applied(clip_file, tmp_path):
    turned = tmp_path / "turned.mp4"
    # The tag for a quarter turn is in the track header: a matrix of (0, 1, -1, 0) in place of (1, 0, 0, 1).
    data = bytearray(clip_file.read_bytes())
    header = data.index(b"tkhd") + 4
    one = 0x10000
    for index, value in enumerate([0, one, 0, -one, 0, 0]):
        data[header + 40 + 4 * index : header + 44 + 4 * index] = value.to_bytes(4, "big", signed=True)
    turned.write_bytes(data)
    frame = np.asarray(open_clip(turned, num_frames=1).frames[0])
    assert frame.shape == (64, 48, 3)
    # A quarter turn clockwise brings the bright quarter from the upper left to the upper right.
    quarters = [frame[:32, :24], frame[:32, 24:], frame[32:, :24], frame[32:, 24:]]
    assert int(np.argmax([quarter.mean() for quarter in quarters])) == 1


def test_truncated_video_gives_its_readable_part(tmp_path):
    whole = write_clip(tmp_path / "a.ts", 40, codec="mpeg2video")
    (tmp_path / "cut.ts").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = open_clip(tmp_path / "cut.ts", num_frames=4)
    assert len(clip.frames) == 4
    assert numbers(clip) == sorted(numbers(clip))
    assert max(numbers(clip)) < 40


def test_images_and_videos_are_distinguished(clip_file, tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert isinstance(open_input(clip_file, num_frames=2), Clip)
    assert isinstance(open_input(tmp_path / "a.png"), Image.Image)
    assert not is_video(tmp_path / "none")
    with pytest.raises(MediaError, match="this is not a video, expected one"):
        open_clip(tmp_path / "a.png")
    with pytest.raises(MediaError, match="open_clip reads its frames"):
        open_image(clip_file)


def test_videos_that_cannot_be_opened(clip_file, tmp_path, monkeypatch):
    data = clip_file.read_bytes()
    (tmp_path / "head.mp4").write_bytes(data[:40])
    assert "damaged or incomplete" in video_failure(tmp_path / "head.mp4")
    assert "has no pages" in video_failure(f"{clip_file}#2")
    assert "the limit is" in video_failure(clip_file, max_pixels=100)
    assert "no such file" in video_failure(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert "only sound" in video_failure(tmp_path / "sound.mkv")
    without(monkeypatch, "av")
    with pytest.raises(MediaError, match=r'pip install "slime-vlm\[video\]"'):
        read_frames(Request(clip_file, "clip"), 8)
    assert "this is a video, expected an image" in failure_here(clip_file)


def test_sheet_shows_the_frames_row_by_row(clip_file):
    sheet = open_clip(clip_file).sheet(4, 2)
    assert sheet.size == (128, 192)
    cells = np.asarray(sheet).reshape(4, 48, 2, 64, 3)[:, 40, :, 60, 0].reshape(-1)
    assert list(cells) == sorted(cells)
    with pytest.raises(ValueError, match="8 frames do not fill 3 x 2"):
        open_clip(clip_file).sheet(3, 2)
