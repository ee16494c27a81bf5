"""Start worker processes, exchange messages with them, and keep idle ones for the next task.

A worker does one task at a time. It ends when its input ends, so it does not outlive the process that started it. Any
thread may use a pool. A process that was forked from this one starts workers of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from slime_vlm.workers.shared_memory import SharedMemory

# One thread for libraries that start many for no use here, and few arenas: each reserves memory that the limit counts.
# Large pages: a decoder fills new memory for every image, and half of the time of some goes into small ones.
_TUNABLES = "GLIBC_TUNABLES"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    _TUNABLES: "glibc.malloc.hugetlb=1",
}


class WorkerProcess:
    """A process that does one task at a time.

    Args:
        module: The module of the other end, which has a function `serve`.
        shared_bytes: Memory to share with it. `serve` gets its file descriptor, or -1 where there is none.

    Attributes:
        is_ready: Whether it can take another task.
        is_expired: Whether the last task took too long.
        shared: The memory that is shared, if any.
    """

    def __init__(self, module: str, shared_bytes: int = 0) -> None:
        self.shared = SharedMemory.create(shared_bytes) if shared_bytes else None
        descriptor = -1 if self.shared is None else self.shared.descriptor
        program = (
            "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
            f"from {module} import serve; serve({descriptor})"
        )
        tunables = filter(None, (os.environ.get(_TUNABLES), _ENVIRONMENT[_TUNABLES]))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, **_ENVIRONMENT, _TUNABLES: ":".join(tunables)},
                pass_fds=() if descriptor < 0 else (descriptor,),
            )
        except BaseException:
            if self.shared is not None:
                self.shared.close()
            raise
        if self.shared is not None:
            self.shared.close_descriptor()
        self.is_ready = False
        self.is_expired = False
        self.send([os.path.abspath(path) for path in sys.path])

    @contextmanager
    def task(self, seconds: float) -> Iterator[None]:
        """End the process if a block takes longer than this. The block sets `is_ready` when its exchange is complete.

        Raises:
            EOFError: The process has ended.
        """
        self.is_ready, self.is_expired = False, False
        watchdog = threading.Timer(seconds, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except BrokenPipeError:
            raise EOFError from None
        finally:
            watchdog.cancel()

    def send(self, message: Any, default: Callable[[Any], str] | None = None) -> None:
        """Send a message as a line of JSON. `default` gives a text for a value that JSON does not have."""
        assert self.process.stdin is not None
        content = memoryview(json.dumps(message, default=default, skipkeys=default is not None).encode() + b"\n")
        while content:
            content = content[self.process.stdin.write(content) :]

    def receive(self) -> Any:
        """Receive an answer of `limits.send_line`. Pixels may follow, so bytes are not read ahead."""
        length = bytearray(4)
        self.fill(memoryview(length))
        line = bytearray(int.from_bytes(length, "big"))
        self.fill(memoryview(line))
        return json.loads(line)

    def fill(self, rest: memoryview) -> None:
        """Receive as many bytes as a buffer has.

        Raises:
            EOFError: The process has ended.
        """
        assert self.process.stdout is not None
        while rest:
            count = self.process.stdout.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            rest = rest[count:]

    def end(self) -> None:
        """End the process and forget it."""
        self.process.kill()
        self.forget()
        self.process.wait()

    def forget(self) -> None:
        """Close this end of the pipes, and let the shared memory go. The worker ends when its input does."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self.shared is not None:
            self.shared.close()

    def _expire(self) -> None:
        self.is_expired = True
        self.process.kill()


class WorkerPool:
    """The idle workers of this process for one kind of task, and the right to use one.

    Args:
        module: The module of the other end, which has a function `serve`.
        max_workers: Tasks at the same time.
        shared_bytes: See `WorkerProcess`.
    """

    def __init__(self, module: str, max_workers: int, shared_bytes: int = 0) -> None:
        self._module, self._max_workers, self._shared_bytes = module, max_workers, shared_bytes
        self.idle: list[WorkerProcess] = []
        self._slots = threading.BoundedSemaphore(max_workers)
        atexit.register(self.end_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_anew)

    @contextmanager
    def worker(self) -> Iterator[WorkerProcess]:
        """Give a worker, an idle one or a new one. It is kept if it is ready afterwards."""
        with self._slots:
            try:
                worker = self.idle.pop()
            except IndexError:
                worker = WorkerProcess(self._module, self._shared_bytes)
            try:
                yield worker
            finally:
                # After Ctrl-C, too: what remains of a broken exchange must not be taken for the next one.
                if worker.is_ready:
                    self.idle.append(worker)
                else:
                    worker.end()

    def end_all(self) -> None:
        """End the idle workers of this process. The next task starts a new one."""
        while self.idle:
            self.idle.pop().end()

    def _start_anew(self) -> None:
        """Leave the workers of a parent process to it."""
        for worker in self.idle:
            worker.forget()
            # Not a child of this process, so there is nothing to wait for.
            worker.process.returncode = 0
        self.idle = []
        self._slots = threading.BoundedSemaphore(self._max_workers)
