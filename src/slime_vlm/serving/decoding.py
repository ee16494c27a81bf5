"""A pool of processes that decode images. One that dies, hangs or takes too much memory costs one image."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.errors import MediaError
from slime_vlm.serving.decoding_worker import DecodeOptions, PreviewOptions, run_worker
from slime_vlm.serving.jobs import Views
from slime_vlm.serving.metrics import Metrics

_MODULE = "slime_vlm.serving.decoding_worker"
_SHARED = Path("/dev/shm")  # noqa: S108  (a folder of its own is made in it)
_ROOM = 1 << 28


class _Worker:
    def __init__(self, memory_mb: int) -> None:
        # Uploads stay in memory where there is room for them.
        in_memory = _SHARED.is_dir() and shutil.disk_usage(_SHARED).free >= _ROOM
        self.folder = tempfile.TemporaryDirectory(prefix="slime-", dir=_SHARED if in_memory else None)
        # A server process that has imported everything and nothing else forks the workers: within milliseconds, and
        # without the model, its threads or a GPU in them.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_MODULE])
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self.retires = False
        self.process = context.Process(target=run_worker, args=(theirs, self.folder.name, memory_mb), daemon=True)
        self.process.start()
        theirs.close()

    def call(self, options: bytes, content: bytes, timeout: float) -> tuple[bytes, bytes]:
        """Send an image, and return header and pixels.

        Raises:
            TimeoutError: It took too long.
            OSError: The process has died.
        """
        try:
            self.connection.send_bytes(options)
            self.connection.send_bytes(content)
            if not self.connection.poll(timeout):
                raise TimeoutError
            header, pixels = self.connection.recv_bytes(), self.connection.recv_bytes()
            # It ends itself after a file that took much memory.
            self.retires = bool(json.loads(header).get("retires"))
            return header, pixels
        except EOFError as error:
            raise ConnectionResetError from error

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.folder.cleanup()


class DecoderPool:
    """Processes that decode images and cut them into views.

    Args:
        num_workers: Number of processes.
        memory_mb: Memory of each.
        timeout: Seconds that an image may take.
        metrics: Counters of the server.
    """

    def __init__(self, num_workers: int, memory_mb: int, timeout: float, metrics: Metrics) -> None:
        self._num_workers, self._memory_mb, self._timeout = num_workers, memory_mb, timeout
        self._metrics = metrics
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._workers: set[_Worker] = set()
        # Threads of their own: nothing else that waits keeps an idle process from its image.
        self._threads = ThreadPoolExecutor(num_workers, "slime-decoder")
        self._is_stopped = False

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    async def start(self) -> None:
        """Start all processes."""
        for _ in range(self._num_workers):
            await self._add()

    async def stop(self) -> None:
        """End all processes."""
        self._is_stopped = True
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._threads.shutdown(wait=False)

    async def decode(self, content: bytes, options: DecodeOptions) -> Views:
        """Decode an image as soon as a process is idle.

        Raises:
            MediaError: The image cannot be read, takes too long, or has killed the process.
        """
        found, pixels = await self._call(content, options.to_json())
        height, width = found["size"]
        views = np.frombuffer(pixels, np.uint8).reshape(found["shape"])
        return Views((int(height), int(width)), views, float(found["seconds"]))

    async def preview(self, content: bytes, options: PreviewOptions) -> tuple[dict[str, Any], bytes]:
        """Draw an image for people.

        Returns:
            See `decoding_worker.preview`.

        Raises:
            MediaError: See `decode`.
        """
        return await self._call(content, options.to_json())

    async def _call(self, content: bytes, options: bytes) -> tuple[dict[str, Any], bytes]:
        # Cancelled here when nobody waits for the image any more; once it is sent, it is finished.
        worker = await self._idle.get()
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, worker.call, options, content, self._timeout)
        call.add_done_callback(lambda done: asyncio.ensure_future(self._release(worker, done)))
        try:
            header, pixels = await asyncio.shield(call)
        except TimeoutError:
            raise MediaError(f"image: it took longer than {self._timeout:g} seconds to decode") from None
        except OSError:
            raise MediaError("image: the process that decodes it has died, as damaged files may cause") from None
        found: dict[str, Any] = json.loads(header)
        if "error" in found:
            raise MediaError(str(found["error"]))
        return found, pixels

    async def _release(self, worker: _Worker, call: asyncio.Future[tuple[bytes, bytes]]) -> None:
        if self._is_stopped:
            return
        is_lost = call.cancelled() or call.exception() is not None
        if is_lost or worker.retires:
            self._workers.discard(worker)
            worker.kill()
            self._metrics.lost_decoders.inc(is_lost)
            await self._add()
        else:
            self._idle.put_nowait(worker)

    async def _add(self) -> None:
        worker = await asyncio.to_thread(_Worker, self._memory_mb)
        self._workers.add(worker)
        self._idle.put_nowait(worker)
