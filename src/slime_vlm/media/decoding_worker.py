"""The process that `worker_pool` starts: it decodes files one after the other, each within limits.

Requests are lines of JSON on standard input. An answer is the length of a line of JSON in 4 bytes, the line, and then
the pixels of its images as Pillow holds them, 4 bytes each, by `pixel_bands`. A band is put into the shared memory, a
byte says that it is there, and a line of the parent that it may be replaced. Without shared memory the bands themselves
follow. Nothing that is sent back is code, so a decoder that is taken over cannot use the answer to take over its
parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media.colours import boxes
from slime_vlm.media.decoding import read_frames, read_image, read_layout, read_page_count, read_region
from slime_vlm.media.request import Request
from slime_vlm.workers.limits import data_bytes, limit, send_line
from slime_vlm.workers.shared_memory import SharedMemory

BAND_BYTES = 1 << 20
"""Pixels are handed over in bands of at most so many bytes: few enough to stay in the cache of the processor."""

MOST_LEFT_OVER = 256_000_000
"""A worker that holds more bytes than this after a file is replaced."""

_Images = list[Image.Image]


def _image(request: Request) -> tuple[Any, _Images]:
    return None, [read_image(request)]


def _clip(request: Request, num_frames: int) -> tuple[Any, _Images]:
    clip = read_frames(request, num_frames)
    return clip.seconds, clip.frames


def _count_pages(request: Request) -> tuple[Any, _Images]:
    return read_page_count(request), []


def _find_tiled(request: Request, least_pixels: int) -> tuple[Any, _Images]:
    return read_layout(request, least_pixels), []


def _region(request: Request, index: int, box: list[int]) -> tuple[Any, _Images]:
    left, top, right, bottom = box
    return None, [read_region(request, index, (left, top, right, bottom))]


OPERATIONS: dict[str, Callable[..., tuple[Any, _Images]]] = {
    "image": _image,
    "clip": _clip,
    "count_pages": _count_pages,
    "find_tiled": _find_tiled,
    "region": _region,
}
"""What a worker can be asked for: functions of a request that return a value and images."""


def pixel_bands(height: int, width: int) -> Iterator[tuple[tuple[int, int, int, int], int]]:
    """Divide an image into bands for handing it over.

    Yields:
        (left, top, right, bottom) and the number of bytes, at most `BAND_BYTES`.
    """
    for left, top, right, bottom in boxes(height, width, BAND_BYTES // 4):
        yield (left, top, right, bottom), 4 * (right - left) * (bottom - top)


def serve(descriptor: int) -> None:
    """Answer requests from standard input until it ends.

    Args:
        descriptor: File descriptor of the shared memory, -1 for none.
    """
    shared = None if descriptor < 0 else SharedMemory(descriptor)
    if shared is not None:
        shared.close_descriptor()
    # Ctrl-C goes to every process of a terminal. The parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries may write to standard output, which answers need for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        # `Request.check_size` is the limit.
        Image.MAX_IMAGE_PIXELS = None
        at_start = data_bytes()
        for line in sys.stdin.buffer:
            message = json.loads(line)
            request = Request.from_json(message.pop("request"))
            limit(request.max_memory, message.pop("seconds"))
            answer, images = run_operation(message.pop("operation"), request, message)
            answer["sizes"] = [image.size for image in images]
            left_over = data_bytes() - at_start - sum(4 * image.width * image.height for image in images)
            answer["retires"] = answer["error"] == "memory" or left_over > MOST_LEFT_OVER
            limit(None, None)
            send_line(answers, answer)
            _send_pixels(answers, images, shared)
            if answer["retires"]:
                return
            del images


def run_operation(operation: str, request: Request, arguments: dict[str, Any]) -> tuple[dict[str, Any], _Images]:
    """Run an operation in this process.

    Returns:
        An answer with `error`, which is None or the kind of error, and the images.
    """
    try:
        value, images = OPERATIONS[operation](request, **arguments)
    except MemoryError:
        return {"error": "memory"}, []
    except MediaError as error:
        return {"error": "memory" if _lacked_memory(error) else "media", "text": str(error)}, []
    except OSError as error:
        return {"error": "system", "number": error.errno, "text": error.strerror}, []
    return {"error": None, "value": value}, images


def _lacked_memory(error: BaseException) -> bool:
    """Tell whether an error stems from a lack of memory."""
    cause = error.__cause__ or error.__context__
    return isinstance(error, MemoryError) or (cause is not None and _lacked_memory(cause))


def _send_pixels(answers: BinaryIO, images: _Images, shared: SharedMemory | None) -> None:
    for image in images:
        for box, size in pixel_bands(image.height, image.width):
            band = image.crop(box).tobytes("raw", "RGBX")
            if shared is None:
                answers.write(band)
                continue
            shared.content[:size] = band
            answers.write(b".")
            answers.flush()
            sys.stdin.buffer.readline()
    answers.flush()
