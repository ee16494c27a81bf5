"""Decode files in worker processes with limits on memory and computing time.

Decoders of PDF, DICOM, TIFF, HEIC, AVIF, JPEG 2000 and videos have no budget of their own, hold locks of the whole
process, and some end it when memory is lacking. So they run in a process beside this one. It is started when it is
first needed, stays for the next file, and is replaced when it goes over a limit, crashes or hangs.

Any thread may call `run`. Each call has a worker for itself, and `MAX_WORKERS` work at the same time.
`decoding_worker` is the other end.
"""

from __future__ import annotations

import mmap
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media.decoding_worker import BAND_BYTES, pixel_bands, run_operation
from slime_vlm.media.request import Request, memory_error
from slime_vlm.workers.limits import limit
from slime_vlm.workers.process import WorkerPool, WorkerProcess

MAX_WORKERS = 4
"""Files that one process decodes at the same time. Each may take the memory of one image."""

CPU_SECONDS = 20
"""Computing time for a file, beside a second for each megabyte of it."""

# Waiting is no computing: a decoder that waits for ever is ended after this many times its computing time.
_WAITING = 6

# Signals of a process that ends itself, which decoders do when memory is lacking.
_GAVE_UP = {"SIGABRT", "SIGTRAP", "SIGILL"}

_pool = WorkerPool("slime_vlm.media.decoding_worker", MAX_WORKERS, BAND_BYTES)
_is_worker = False


@dataclass(frozen=True)
class Reply:
    """What a worker returns.

    Attributes:
        value: A value beside the images, of types that JSON has.
        images: RGB images.
    """

    value: Any
    images: list[Image.Image]


def run(operation: str, request: Request, **arguments: Any) -> Reply:
    """Decode a file in a worker.

    Args:
        operation: A key of `decoding_worker.OPERATIONS`.
        request: The file and the limits.
        **arguments: More arguments of the operation.

    Raises:
        MediaError: The operation raises it, or it needs more memory or time than allowed, or its decoder crashes.
        OSError: The operation raises it.
    """
    seconds = CPU_SECONDS + _megabytes(request)
    if _is_worker:
        limit(request.max_memory, seconds)
        try:
            return _reply(*run_operation(operation, request, arguments), request)
        finally:
            limit(None, None)
    with _pool.worker() as worker:
        try:
            with worker.task(_WAITING * seconds):
                worker.send({"operation": operation, "request": request.to_json(), "seconds": seconds, **arguments})
                answer = worker.receive()
                images = [_receive_image(worker, size, request) for size in answer.pop("sizes", [])]
        except EOFError:
            raise _failure(worker, request, seconds) from None
        worker.is_ready = not answer.get("retires", False)
    return _reply(answer, images, request)


def run_here() -> None:
    """Let `run` decode in this process from now on, for one that is a worker itself: another process may replace it."""
    global _is_worker
    _is_worker = True


def end_all() -> None:
    """End the idle workers of this process. The next file starts a new one."""
    _pool.end_all()


def _reply(answer: dict[str, Any], images: list[Image.Image], request: Request) -> Reply:
    kind = answer.get("error")
    if kind is None:
        return Reply(answer["value"], images)
    if kind == "memory":
        raise memory_error(request)
    if kind == "system":
        raise OSError(answer["number"], answer["text"], str(request.path))
    raise MediaError(answer["text"])


def _receive_image(worker: WorkerProcess, size: Sequence[int], request: Request) -> Image.Image:
    """Receive an image into the memory that it stays in. It is read-only: Pillow copies it before it changes it.

    Raises:
        MediaError: The worker gives an image that it must not give.
        MemoryError: There is no room.
    """
    width, height = size
    if not (width > 0 and height > 0 and width * height <= request.max_pixels):
        raise MediaError(f"{request.name}: its decoder gave an image of {width} x {height} pixels; make a new copy")
    content = _room(4 * width * height)
    rest = memoryview(content)
    for _, num_bytes in pixel_bands(height, width):
        if worker.shared is None:
            worker.fill(rest[:num_bytes])
        else:
            worker.fill(memoryview(bytearray(1)))
            rest[:num_bytes] = worker.shared.content[:num_bytes]
            worker.send(None)
        rest = rest[num_bytes:]
    # `Image.frombuffer` does the same, but not for RGB.
    mapped = Image.core.map_buffer(content, (width, height), "raw", 0, ("RGB", 0, 1))
    image = Image.Image()._new(mapped)
    image.readonly = 1
    return image


def _room(size: int) -> mmap.mmap | bytearray:
    """Return memory for an image. Large pages save half of the time that it takes to fill it.

    Raises:
        MemoryError: There is none.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return bytearray(size)
    try:
        found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError from None
    # Some kernels have none.
    with suppress(OSError):
        found.madvise(mmap.MADV_HUGEPAGE)
    return found


def _failure(worker: WorkerProcess, request: Request, seconds: int) -> MediaError:
    """Return the error for a worker that has ended."""
    status = worker.process.wait()
    name = signal.Signals(-status).name if status < 0 else ""
    if name == "SIGXCPU" or worker.is_expired:
        return MediaError(
            f"{request.name}: opening it takes more than {seconds} seconds of computing; save it again in another "
            "program, or as PNG"
        )
    if name in _GAVE_UP or name == "SIGKILL":
        return MediaError(
            f"{request.name}: its decoder gave up ({name}), most likely because opening it takes more than "
            f"{request.max_memory / 1e6:,.0f} MB of memory; raise the limit with --max-memory"
        )
    if name:
        return MediaError(f"{request.name}: its decoder crashed ({name}); make a new copy of it")
    return MediaError(f"{request.name}: the process that decodes it ended with exit code {status}; try slime doctor")


def _megabytes(request: Request) -> int:
    with suppress(OSError):
        return request.path.stat().st_size // 1_000_000
    return 0
