"""The thread that owns the model. Requests come in from the event loop, events go back to it once a step."""

from __future__ import annotations

import asyncio
import enum
import logging
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import torch

from slime_vlm.serving.jobs import Done, Event, Failed, Job
from slime_vlm.serving.scheduler import Scheduler

_LOOK_SECONDS = 0.05
"""While all requests wait for their images, those that are given up are looked for so often."""

_LOG = logging.getLogger("slime_vlm.serving")


class _Note(enum.Enum):
    ENCODED = enum.auto()
    STOP = enum.auto()


@dataclass(eq=False)
class Events:
    """The events of a job, on the event loop's side."""

    job: Job
    _queue: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events up to the last one."""
        while True:
            event = await self._queue.get()
            yield event
            if isinstance(event, Done | Failed):
                return

    def put(self, event: Event) -> None:
        """Take an event, on the event loop."""
        self._queue.put_nowait(event)


class Engine:
    """Runs a scheduler in a thread.

    Args:
        scheduler: The scheduler.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._inbox: queue.SimpleQueue[Job | _Note] = queue.SimpleQueue()
        self._outbox: list[tuple[Events, Event]] = []
        self._thread = threading.Thread(target=self._run, name="slime-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        scheduler.encoder.on_done = lambda: self._inbox.put(_Note.ENCODED)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, from the event loop that will get the events."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its step. Requests under way fail."""
        self._inbox.put(_Note.STOP)
        self._thread.join()
        self.scheduler.close()

    def submit(self, job: Job) -> Events:
        """Hand a job over, from the event loop. To give it up, set its `cancelled`."""
        events = Events(job)
        job.emit = lambda event: self._outbox.append((events, event))
        self._inbox.put(job)
        return events

    def _run(self) -> None:
        while True:
            try:
                while True:
                    job = self._next()
                    if job is _Note.ENCODED:
                        continue
                    if job is _Note.STOP:
                        self.scheduler.fail_all("the server is shutting down")
                        self._flush()
                        return
                    self.scheduler.waiting.append(job)
            except queue.Empty:
                pass
            try:
                self.scheduler.step()
            except Exception as error:
                # The state of every row may be damaged. The server goes on with the next requests.
                _LOG.exception("a step failed")
                out = isinstance(error, torch.OutOfMemoryError)
                self.scheduler.fail_all("out of memory" if out else "the model failed; the log of the server has more")
            self._flush()

    def _next(self) -> Job | _Note:
        """Return what came in. Waits for it while there is nothing else to do.

        Raises:
            queue.Empty: There is something to do, or requests that wait for images may have been given up.
        """
        scheduler = self.scheduler
        if scheduler.has_work:
            return self._inbox.get(block=False)
        return self._inbox.get(timeout=None if scheduler.is_idle else _LOOK_SECONDS)

    def _flush(self) -> None:
        if self._outbox and self._loop is not None and not self._loop.is_closed():
            batch, self._outbox = self._outbox, []
            self._loop.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: list[tuple[Events, Event]]) -> None:
    for events, event in batch:
        events.put(event)
