"""A worker of a job on a Ray cluster: loads the model once, and answers the records that it is handed.

Nothing here imports Ray. `ray_run` makes actors of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from slime_vlm.batch.options import JobOptions
from slime_vlm.batch.records import Asked
from slime_vlm.batch.run import load_run
from slime_vlm.checkpoints.hub import resolve
from slime_vlm.errors import ConfigError
from slime_vlm.evaluation.run_folder import fingerprint


@dataclass(frozen=True)
class Outcome:
    """What became of a record: the fields of its answer, or why there is none."""

    fields: dict[str, Any] | None = None
    error: str = ""


class Worker:
    """Answers records, several at once. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._handed: dict[int, tuple[Asked, Future[Outcome]]] = {}
        self._inbox: SimpleQueue[int] = SimpleQueue()
        self._under_way: set[int] = set()
        self._failure: Exception | None = None

    def load(self, options: JobOptions, images: Path, weights: str) -> None:
        """Load the model, before the first record.

        Args:
            options: The job.
            images: Folder or archive that image paths start from.
            weights: Fingerprint of the model on the machine of the driver.

        Raises:
            ConfigError: This machine has another model, or cannot run it.
            CheckpointError: This machine does not have the model.
        """
        found = fingerprint(resolve(options.model))
        if found != weights:
            raise ConfigError(
                f"the model {options.model} on {socket.gethostname()} has the fingerprint {found}, expected {weights}; "
                "copy the same checkpoint to every machine"
            )
        run = load_run(options, images, self._on_answer, self._on_error)

        def answer() -> None:
            try:
                run.run(self._indices(), lambda index: self._handed[index][0])
            # Whatever it is, the driver has to know.
            except Exception as error:
                self._failure = error
                for _, future in list(self._handed.values()):
                    future.set_exception(error)

        threading.Thread(target=answer, name="slime-batch", daemon=True).start()

    def answer(self, index: int, asked: Asked) -> Outcome:
        """Answer a record, and wait for it.

        Raises:
            Exception: The model failed. This worker answers nothing any more.
        """
        future: Future[Outcome] = Future()
        self._handed[index] = asked, future
        # After the record is handed over, so that a failure finds it if it comes later.
        if self._failure is not None:
            raise self._failure
        self._inbox.put(index)
        return future.result()

    def _indices(self) -> Iterator[int]:
        return _Handed(self._inbox, self._under_way)

    def _on_answer(self, index: int, fields: dict[str, Any]) -> None:
        self._settle(index, Outcome(fields))

    def _on_error(self, index: int, message: str) -> None:
        self._settle(index, Outcome(error=message))

    def _settle(self, index: int, outcome: Outcome) -> None:
        self._under_way.remove(index)
        _, future = self._handed.pop(index)
        future.set_result(outcome)


class _Handed(Iterator[int]):
    """The indices that come in. It waits for the next one while nothing is under way, and pauses otherwise."""

    def __init__(self, inbox: SimpleQueue[int], under_way: set[int]) -> None:
        self._inbox, self._under_way = inbox, under_way

    def __next__(self) -> int:
        try:
            index = self._inbox.get(block=not self._under_way)
        except Empty:
            raise StopIteration from None
        self._under_way.add(index)
        return index
