"""Frames of videos, read by FFmpeg through PyAV: a few, evenly spread in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.extras import import_extra
from slime_vlm.media.request import Request

NUM_FRAMES = 8
"""Frames that are looked at by default, as published."""

# A sheet is for looking at; its cells need not be larger.
_CELL_SIDE = 640


@dataclass(frozen=True)
class Clip:
    """Frames of a video, in the order of time.

    Attributes:
        frames: RGB images of one size, upright.
        seconds: when each is shown, from the beginning of the video.
    """

    frames: list[Image.Image]
    seconds: list[float]

    @property
    def height(self) -> int:
        """Height of a frame."""
        return self.frames[0].height

    @property
    def width(self) -> int:
        """Width of a frame."""
        return self.frames[0].width

    def sheet(self, rows: int, cols: int) -> Image.Image:
        """Lays the frames out row by row on one image, to be drawn on.

        Raises:
            ValueError: rows times columns is not the number of frames.
        """
        if rows * cols != len(self.frames):
            raise ValueError(f"{len(self.frames)} frames do not fill {rows} x {cols} places")
        width, height = self.frames[0].size
        scale = min(1.0, _CELL_SIDE / max(width, height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        sheet = Image.new("RGB", (cols * width, rows * height))
        for number, frame in enumerate(self.frames):
            place = (number % cols * width, number // cols * height)
            sheet.paste(frame.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), place)
        return sheet


def read_clip(request: Request, num_frames: int = NUM_FRAMES) -> Clip:
    """Reads the frames that are shown in the middles of equal spans of time; of a shorter video, all that it has.

    The file is read through once without decoding, for the times of its frames: headers are often wrong or silent
    about their number. Then only what is needed is decoded, from the nearest key frame before each.

    Args:
        request: the file; `page` must be None.
        num_frames: how many frames to read.

    Raises:
        MediaError: PyAV is not installed, the file has no video, is damaged before its first frame, or its frames are
            larger than the limit; a page is asked for.
    """
    av = import_extra("av", request.name, "a video", "video")
    if request.page is not None:
        raise MediaError(
            f"{request.name}: a video has no pages, leave #{request.page} out; --frames is how many to take"
        )
    try:
        with av.open(str(request.path)) as container:
            if not container.streams.video:
                raise MediaError(f"{request.name}: there is sound alone in it, a video is expected")
            stream = container.streams.best("video")
            if stream.disposition & av.stream.Disposition.attached_pic:
                raise MediaError(f"{request.name}: there is sound with a cover in it, a video is expected")
            request.check_size(stream.height or 1, stream.width or 1)
            stream.thread_type = "AUTO"
            times = _frame_times(container, stream)
            wanted = [times[place] for place in _middles(times, num_frames)]
            found = list(_frames_at(container, stream, wanted, request, earliest=min(0, times[0])))
    except av.error.FFmpegError as error:
        raise MediaError(f"{request.name}: the video is damaged or incomplete ({error.strerror})") from error
    if not found:
        raise MediaError(f"{request.name}: no frame of the video can be decoded; make a new copy of it")
    start = Fraction(times[0])
    base = stream.time_base or Fraction(1)
    size = found[0][1].size
    return Clip(
        # A stream may change its size on the way.
        frames=[image if image.size == size else image.resize(size) for _time, image in found],
        seconds=[round(float((time - start) * base), 3) for time, _image in found],
    )


def _frame_times(container: Any, stream: Any) -> list[int]:
    """Times of all frames of a stream in its own units, sorted; one that is not told is taken from its neighbour."""
    times = []
    try:
        for packet in container.demux(stream):
            # Some frames are only decoded for the sake of others, and never shown.
            if packet.size and not packet.is_discard:
                times.append(packet.pts if packet.pts is not None else packet.dts)
    except Exception:
        # A file that was cut off is as long as what can be read of it.
        if not times:
            raise
    return sorted({time for time in times if time is not None}) or [0]


def _middles(times: list[int], num_frames: int) -> list[int]:
    """Places of the frames shown in the middles of equal spans of time; all places when there are no more frames.

    The last frame is taken to be shown as long as the mean of the others.
    """
    count = len(times)
    if count <= num_frames:
        return list(range(count))
    length = (times[-1] - times[0]) * count / (count - 1)
    middles = [times[0] + (2 * span + 1) * length / (2 * num_frames) for span in range(num_frames)]
    places = [bisect_right(times, middle) - 1 for middle in middles]
    # A frame that stays long would be taken twice.
    return sorted(set(places))


def _frames_at(
    container: Any, stream: Any, wanted: list[int], request: Request, earliest: int
) -> Iterator[tuple[int, Image.Image]]:
    """Decodes the frames that are shown at some times, in ascending order; what cannot be decoded is left out."""
    for number, time in enumerate(wanted):
        frame = _frame_at(container, stream, time, earliest)
        # Past damage FFmpeg goes on with whatever comes next: that is another span's frame, or none.
        if frame is None or (frame.pts is not None and bisect_right(wanted, frame.pts) - 1 > number):
            continue
        request.check_size(frame.height, frame.width)
        yield time if frame.pts is None else frame.pts, _upright(frame)


def _frame_at(container: Any, stream: Any, time: int, earliest: int) -> Any:
    """The frame that is shown at a time, the nearest one that can be decoded, or None."""
    second = round(1 / (stream.time_base or 1))
    found = None
    # Some containers (MPEG transport streams) land behind the time they are asked for: ask for ever earlier ones.
    for back in (0, 2 * second, 16 * second, None):
        target = earliest if back is None else max(earliest, time - back)
        container.seek(target, stream=stream, backward=True, any_frame=False)
        for frame in _decoded(container, stream):
            if frame.pts is not None and frame.pts > time:
                found = found or frame
                break
            found = frame
            if frame.pts is None or frame.pts == time:
                break
        if found is not None and (found.pts is None or found.pts <= time):
            return found
    return found


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames from here on, until the end or what cannot be decoded."""
    from av.error import FFmpegError

    try:
        yield from container.decode(stream)
    except FFmpegError:
        return


def _upright(frame: Any) -> Image.Image:
    """The frame turned upright: phones store it lying and tell by how much to turn it, counter-clockwise."""
    image: Image.Image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)
