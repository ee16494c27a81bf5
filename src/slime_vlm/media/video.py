"""Frames of videos, evenly spread in time, read by FFmpeg through PyAV."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.extras import import_extra
from slime_vlm.media.file_type import FileType, brands, is_container
from slime_vlm.media.request import RESULT_BYTES, Request

NUM_FRAMES = 8
"""Default number of frames, as published."""

# The largest side of a frame on a sheet, in pixels. People look at sheets, so more is not needed.
_CELL_SIDE = 640

# Matroska and WebM, Flash, MPEG programs and bare MPEG video, Windows Media, Ogg.
_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",
    b"FLV\x01",
    b"\0\0\x01\xba",
    b"\0\0\x01\xb3",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"OggS",
)
# First boxes of QuickTime files that are older than brands.
_QUICKTIME_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip"}
# The brand of Canon's raw images. They share the container of MP4, and no reader here knows them.
_CANON_RAW = b"crx "
# Start and size of the packets of a transport stream. Discs and camcorders put four bytes of time before each.
_TRANSPORT_PACKETS = ((0, 188), (4, 192))


@dataclass(frozen=True)
class Clip:
    """Frames of a video, in the order of time.

    Attributes:
        frames: RGB images of one size, upright.
        seconds: When each frame is shown, in seconds from the beginning of the video.
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
        """Return one image with the frames row by row, to draw on.

        Args:
            rows: Number of rows.
            cols: Number of columns.

        Raises:
            ValueError: Rows times columns is not the number of frames.
        """
        if rows * cols != len(self.frames):
            raise ValueError(f"{len(self.frames)} frames do not fill {rows} x {cols} cells")
        width, height = self.frames[0].size
        scale = min(1.0, _CELL_SIDE / max(width, height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        sheet = Image.new("RGB", (cols * width, rows * height))
        for number, frame in enumerate(self.frames):
            corner = (number % cols * width, number // cols * height)
            sheet.paste(frame.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), corner)
        return sheet


def recognizes_video(head: bytes) -> bool:
    """Tell whether a file is a video. HEIC and AVIF images share the container of MP4, so ask for them first."""
    if is_container(head):
        return _CANON_RAW not in brands(head)
    if head.startswith(_SIGNATURES) or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return True
    # Every packet of a transport stream begins with a G.
    transport_stream = any(head[start::size][:4] == b"GGGG" for start, size in _TRANSPORT_PACKETS)
    return head[4:8] in _QUICKTIME_BOXES or transport_stream


def refuse_video(request: Request) -> NoReturn:
    """Refuse to read a video as an image.

    Raises:
        MediaError: Always.
    """
    advice = "videos are not read from here" if request.untrusted else "open_clip reads its frames"
    raise MediaError(f"{request.name}: this is a video, expected an image; {advice}")


def read_clip(request: Request, num_frames: int = NUM_FRAMES) -> Clip:
    """Read the frames in the middle of equal spans of time. A shorter video gives all its frames.

    The first pass reads the times of all frames without decoding them, because headers are often wrong about their
    number. The second pass decodes only what is needed, from the nearest key frame before each chosen frame.

    Args:
        request: The file. Its `page` must be None.
        num_frames: How many frames to read.

    Raises:
        MediaError: PyAV is not installed, the file has no video or is damaged before its first frame, its frames are
            larger than the limit, or a page is requested.
    """
    av = import_extra("av", request.name, "a video needs PyAV", "video")
    if request.page is not None:
        raise MediaError(
            f"{request.name}: a video has no pages; leave #{request.page} out, --frames sets the number of frames"
        )
    try:
        with av.open(str(request.path)) as container:
            if not container.streams.video:
                raise MediaError(f"{request.name}: it holds only sound, expected a video")
            stream = container.streams.best("video")
            if stream.disposition & av.stream.Disposition.attached_pic:
                raise MediaError(f"{request.name}: it holds sound and a cover image, expected a video")
            height, width = stream.height or 1, stream.width or 1
            request.check_size(height, width, pixel_bytes=RESULT_BYTES * num_frames)
            stream.thread_type = "AUTO"
            times = _frame_times(container, stream)
            wanted = [times[index] for index in middle_frames(times, num_frames)]
            found = list(_frames_at(container, stream, wanted, request, earliest=min(0, times[0])))
    except av.error.FFmpegError as error:
        raise MediaError(f"{request.name}: the video is damaged or incomplete ({error.strerror})") from error
    if not found:
        raise MediaError(f"{request.name}: no frame of the video can be decoded; make a new copy of it")
    start = Fraction(times[0])
    base = stream.time_base or Fraction(1)
    size = found[0][1].size
    return Clip(
        # The size of the frames may change within a stream.
        frames=[image if image.size == size else image.resize(size) for _time, image in found],
        seconds=[round(float((time - start) * base), 3) for time, _image in found],
    )


def _frame_times(container: Any, stream: Any) -> list[int]:
    """Return the times of all frames of a stream, sorted, in its own units. Frames without a time are left out."""
    times = []
    try:
        for packet in container.demux(stream):
            # Some frames are only references for others and never shown.
            if packet.size and not packet.is_discard:
                times.append(packet.pts if packet.pts is not None else packet.dts)
    except Exception:
        # A truncated video is as long as its readable part.
        if not times:
            raise
    return sorted({time for time in times if time is not None}) or [0]


def middle_frames(times: list[int], num_frames: int) -> list[int]:
    """Return the indices of the frames that are shown in the middle of equal spans of time.

    The last frame is assumed to be shown for the mean duration of the others.

    Args:
        times: When each frame is shown, ascending.
        num_frames: The number of spans.

    Returns:
        Indices, each once. All indices if there are at most `num_frames` frames.
    """
    count = len(times)
    if count <= num_frames:
        return list(range(count))
    length = (times[-1] - times[0]) * count / (count - 1)
    middles = [times[0] + (2 * span + 1) * length / (2 * num_frames) for span in range(num_frames)]
    # A frame that is shown for several spans counts once.
    return sorted({bisect_right(times, middle) - 1 for middle in middles})


def _frames_at(
    container: Any, stream: Any, wanted: list[int], request: Request, earliest: int
) -> Iterator[tuple[int, Image.Image]]:
    """Decode the frames that are shown at ascending times, and leave out those that cannot be decoded."""
    for number, time in enumerate(wanted):
        frame = _frame_at(container, stream, time, earliest)
        # After damage FFmpeg continues with the next good frame, which may belong to another span.
        if frame is None or (frame.pts is not None and bisect_right(wanted, frame.pts) - 1 > number):
            continue
        request.check_size(frame.height, frame.width, pixel_bytes=RESULT_BYTES * len(wanted))
        yield time if frame.pts is None else frame.pts, _upright(frame)


def _frame_at(container: Any, stream: Any, time: int, earliest: int) -> Any:
    """Return the frame that is shown at a time, else the nearest one that can be decoded, else None."""
    second = round(1 / (stream.time_base or 1))
    found = None
    # Seeking in some containers (MPEG transport streams) ends after the requested time. Then seek further back.
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
    """Yield frames from here on, up to the end or to damage."""
    from av.error import FFmpegError

    try:
        yield from container.decode(stream)
    except FFmpegError:
        return


def _upright(frame: Any) -> Image.Image:
    """Return the frame upright. Phones store it rotated, with the counter-clockwise angle that turns it back."""
    image: Image.Image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


VIDEO = FileType(recognizes_video, refuse_video)
