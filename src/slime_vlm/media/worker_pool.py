"""Decode files in worker processes with limits on memory and computing time.

Decoders of PDF, DICOM, TIFF, HEIC, AVIF, JPEG 2000 and videos have no budget of their own, hold locks of the whole
process, and some end it when memory is lacking. So they run in a process beside this one. It is started when it is
first needed, stays for the next file, and is replaced when it goes over a limit, crashes or hangs.

Any thread may call `run`. Each call has a worker for itself, and `MAX_WORKERS` work at the same time. A process that
was forked from this one, such as a worker of a data loader, starts workers of its own. `decoding_worker` is the other
end.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media.colours import boxes
from slime_vlm.media.request import Request, memory_error

MAX_WORKERS = 4
"""Files that one process decodes at the same time. Each may take the memory of one image."""

CPU_SECONDS = 20
"""Computing time for a file, beside a second for each megabyte of it."""

# Waiting is no computing: a decoder that waits for ever is ended after this many times its computing time.
_WAITING = 6

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from slime_vlm.media.decoding_worker import serve; serve()"
)
# One thread for libraries that start many for no use here, and few arenas: each reserves memory that the limit counts.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
# Signals of a process that ends itself, which decoders do when memory is lacking.
_GAVE_UP = {"SIGABRT", "SIGTRAP", "SIGILL"}


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
    with _pool.slots:
        try:
            worker = _pool.idle.pop()
        except IndexError:
            worker = _Worker()
        try:
            return worker.ask(operation, request, arguments)
        finally:
            # After Ctrl-C, too: what remains of a broken exchange must not be taken for the next one.
            if worker.is_ready:
                _pool.idle.append(worker)
            else:
                worker.end()


class _Worker:
    """A process that decodes one file at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **_ENVIRONMENT},
        )
        self.is_ready = False
        self._expired = False
        self._send([os.path.abspath(path) for path in sys.path])

    def ask(self, operation: str, request: Request, arguments: dict[str, Any]) -> Reply:
        """Run an operation, see `run`. `is_ready` tells afterwards whether the worker can go on."""
        seconds = CPU_SECONDS + _megabytes(request)
        self.is_ready, self._expired = False, False
        watchdog = threading.Timer(_WAITING * seconds, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._send({"operation": operation, "request": request.to_json(), "seconds": seconds, **arguments})
            answer = json.loads(self._line())
            images = [self._image(width, height) for width, height in answer.pop("sizes", [])]
        except (EOFError, BrokenPipeError):
            raise self._failure(request, seconds) from None
        finally:
            watchdog.cancel()
        self.is_ready = not answer.get("retires", False)
        kind = answer.get("error")
        if kind is None:
            return Reply(answer["value"], images)
        if kind == "memory":
            raise memory_error(request)
        if kind == "system":
            raise OSError(answer["number"], answer["text"], str(request.path))
        raise MediaError(answer["text"])

    def end(self) -> None:
        """End the process and forget it."""
        self.process.kill()
        self.forget()
        self.process.wait()

    def forget(self) -> None:
        """Close this end of the pipes. The worker ends when its input does."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _expire(self) -> None:
        self._expired = True
        self.process.kill()

    def _send(self, message: Any) -> None:
        assert self.process.stdin is not None
        content = memoryview(json.dumps(message).encode() + b"\n")
        while content:
            content = content[self.process.stdin.write(content) :]

    def _line(self) -> bytes:
        """Return the next line. Only pixels follow one, so bytes are not read ahead."""
        length = bytearray(4)
        self._fill(memoryview(length))
        line = bytearray(int.from_bytes(length, "big"))
        self._fill(memoryview(line))
        return bytes(line)

    def _fill(self, rest: memoryview) -> None:
        """Receive as many bytes as a buffer has."""
        assert self.process.stdout is not None
        while rest:
            count = self.process.stdout.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            rest = rest[count:]

    def _image(self, width: int, height: int) -> Image.Image:
        """Receive an image by bands, so that its bytes are not in memory twice."""
        image = Image.new("RGB", (width, height))
        for left, top, right, bottom in boxes(height, width):
            size = (right - left, bottom - top)
            content = bytearray(3 * size[0] * size[1])
            self._fill(memoryview(content))
            image.paste(Image.frombuffer("RGB", size, content, "raw", "RGB", 0, 1), (left, top))
        return image

    def _failure(self, request: Request, seconds: int) -> MediaError:
        """Return the error for a worker that has ended."""
        status = self.process.wait()
        name = signal.Signals(-status).name if status < 0 else ""
        if name == "SIGXCPU" or self._expired:
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
        return MediaError(
            f"{request.name}: the process that decodes it ended with exit code {status}; try slime doctor"
        )


class _Pool:
    """The idle workers of this process, and the right to use one."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.slots = threading.BoundedSemaphore(MAX_WORKERS)


def _megabytes(request: Request) -> int:
    with suppress(OSError):
        return request.path.stat().st_size // 1_000_000
    return 0


def _start_anew() -> None:
    """Leave the workers of a parent process to it."""
    global _pool
    for worker in _pool.idle:
        worker.forget()
        # Not a child of this process, so there is nothing to wait for.
        worker.process.returncode = 0
    _pool = _Pool()


def end_all() -> None:
    """End the idle workers of this process. The next file starts a new one."""
    while _pool.idle:
        _pool.idle.pop().end()


_pool = _Pool()
atexit.register(end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
