"""Answer records with workers on a Ray cluster.

The driver hands records out one by one and takes the answers, so a job has one writer wherever its workers are. When a
worker is lost, its records are handed out again.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from slime_vlm.batch.options import JobOptions
from slime_vlm.batch.ray_worker import Outcome, Worker
from slime_vlm.batch.records import Asked, reason_of
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.errors import ConfigError, SlimeError, one_line

LOCAL = "local"
"""The address of a cluster that is started for the job, on this machine alone."""

# Records that a worker has beyond those that decode: their images are opened meanwhile.
_AHEAD = 8
# A record that loses so many workers is given up, and so is a worker that fails so often to start.
_TRIES = 3
# Seconds without any event after which a job tells that it waits.
_PATIENCE = 60.0
# Seconds that a cluster has to take a connection.
_CONNECT = 10.0


@dataclass(eq=False)
class _Seat:
    """A worker and its records. A lost worker is replaced on its seat.

    Attributes:
        actor: Makes workers.
        worker: The worker.
        starting: Result of its start, None once it has started.
        handed: The record behind each result that is waited for.
        failed_starts: How many workers in a row could not start here.
        is_reserved: Whether it has a record that a worker was lost with, and takes no other.
    """

    actor: Any
    worker: Any = None
    starting: Any = None
    handed: dict[Any, int] = field(default_factory=dict)
    failed_starts: int = 0
    is_reserved: bool = False


class RayRun:
    """Answers records on a Ray cluster.

    Args:
        options: The job. Its `ray` is the address of the cluster.
        images: Folder or archive that image paths start from, on every machine.
        weights: Fingerprint of the model, which must be the same on every machine.
        on_answer: Called with the index of a record and the fields of its answer.
        on_error: Called with the index of a record that cannot be answered, and the reason in one line.
        report: Called with a line about workers.
    """

    def __init__(
        self,
        options: JobOptions,
        images: Path,
        weights: str,
        on_answer: Callable[[int, dict[str, Any]], None],
        on_error: Callable[[int, str], None],
        report: Callable[[str], None],
    ) -> None:
        model = Path(options.model).expanduser()
        if options.model not in SHIPPED and model.is_dir():
            # Workers have another working directory.
            options = replace(options, model=str(model.absolute()))
        self._options, self._images, self._weights = options, images.absolute(), weights
        self._on_answer, self._on_error, self._report = on_answer, on_error, report
        slots = options.limits.slots
        self._limit = slots + min(slots, _AHEAD)
        self._left: deque[int] = deque()
        # Records that a worker was lost with. They are handed out last and alone, so that the one that is to blame
        # takes no other with it.
        self._suspects: deque[int] = deque()
        self._losses: Counter[int] = Counter()
        self._seats: list[_Seat] = []

    def run(self, indices: Iterable[int], read: Callable[[int], Asked]) -> None:
        """Answer the records of some indices, read by `read`. Errors of records do not end the run.

        Raises:
            ConfigError: The cluster cannot be reached, or no worker can start.
        """
        self._left.extend(indices)
        with _connected(self._options.ray or LOCAL):
            count, resources = workers_for(ray.nodes(), self._options.device, self._options.ray_workers)
            # One thread more than records, so that no record waits for one.
            options = {**resources, "max_concurrency": self._limit + 1, "scheduling_strategy": "SPREAD"}
            actor = ray.remote(Worker).options(**options)
            self._seats = [self._started(_Seat(actor)) for _ in range(count)]
            is_told = False
            while True:
                self._hand_out(read)
                waited = {ref: seat for seat in self._seats for ref in seat.handed}
                if not (waited or self._left or self._suspects):
                    return
                waited |= {seat.starting: seat for seat in self._seats if seat.starting is not None}
                done, _ = ray.wait(list(waited), timeout=_PATIENCE)
                if not done and not is_told:
                    is_told = True
                    num_starting = sum(seat.starting is not None for seat in self._seats)
                    self._report(f"{num_starting} of {len(self._seats)} workers have not started yet; the job waits")
                for ref in done:
                    seat = waited[ref]
                    if ref is seat.starting:
                        self._settle_start(seat)
                    # A worker may be lost, and this result with it, before its turn comes.
                    elif ref in seat.handed:
                        self._settle(seat, ref)

    def _started(self, seat: _Seat) -> _Seat:
        """Put a new worker on a seat, and have it load the model."""
        seat.worker = seat.actor.remote()
        seat.starting = seat.worker.load.remote(self._options, self._images, self._weights)
        return seat

    def _settle_start(self, seat: _Seat) -> None:
        """Take note that a worker has started, or could not.

        Raises:
            ConfigError: No worker is left.
        """
        try:
            ray.get(seat.starting)
        except RayError as error:
            seat.failed_starts += 1
            # What this package says about a machine, it would say again.
            is_final = isinstance(error, RayTaskError) and isinstance(error.cause, SlimeError)
            if is_final or seat.failed_starts == _TRIES:
                self._seats.remove(seat)
                ray.kill(seat.worker)
                if not self._seats:
                    raise ConfigError(f"no worker can start: {_reason(error)}") from None
                self._report(f"a worker cannot start, {len(self._seats)} go on without it: {_reason(error)}")
            else:
                ray.kill(seat.worker)
                self._started(seat)
        else:
            seat.starting, seat.failed_starts = None, 0

    def _hand_out(self, read: Callable[[int], Asked]) -> None:
        """Give records to the workers that have room, in turn, so that all have some."""
        has_taken = True
        while has_taken:
            has_taken = False
            for seat in self._seats:
                index = self._next_for(seat)
                if index is None:
                    continue
                has_taken = True
                try:
                    asked = read(index)
                # Records come from anywhere, and libraries raise more than they say. One must not end the job.
                except Exception as error:
                    self._on_error(index, reason_of(error))
                else:
                    seat.handed[seat.worker.answer.remote(index, asked)] = index

    def _next_for(self, seat: _Seat) -> int | None:
        if seat.starting is not None or seat.is_reserved or len(seat.handed) == self._limit:
            return None
        if self._left:
            return self._left.popleft()
        if self._suspects and not seat.handed:
            seat.is_reserved = True
            return self._suspects.popleft()
        return None

    def _settle(self, seat: _Seat, ref: Any) -> None:
        """Take a result of a worker, or note that the worker is lost."""
        try:
            outcome: Outcome = ray.get(ref)
        except RayError as error:
            self._lose(seat, error)
            return
        index = seat.handed.pop(ref)
        seat.is_reserved = False
        if outcome.fields is None:
            self._on_error(index, outcome.error)
        else:
            self._on_answer(index, outcome.fields)

    def _lose(self, seat: _Seat, error: RayError) -> None:
        """Replace a worker, and have its records answered by others."""
        lost = list(seat.handed.values())
        self._losses.update(lost)
        for index in lost:
            if self._losses[index] < _TRIES:
                self._suspects.append(index)
            else:
                self._on_error(index, f"{_TRIES} workers were lost with this record; the last one: {_reason(error)}")
        self._report(f"a worker was lost, its {len(lost)} records are handed out again: {_reason(error)}")
        # One that cannot be reached may live.
        ray.kill(seat.worker)
        seat.handed, seat.is_reserved = {}, False
        self._started(seat)


def workers_for(
    nodes: Sequence[Mapping[str, Any]], device: str | None, wanted: int | None
) -> tuple[int, dict[str, int]]:
    """Return how many workers a cluster runs, and what each of them takes.

    Each GPU has one. Without GPUs each machine has one with its CPUs, or with as many as the smallest one has.

    Args:
        nodes: What `ray.nodes` returns.
        device: Device of the model, None for the best one.
        wanted: How many workers there are to be, None for as many as fit.

    Raises:
        ConfigError: The cluster has nothing that workers could take.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(resources.get("GPU", 0)) for resources in alive)
    if device.startswith("cuda") if device else gpus:
        count, takes = gpus if wanted is None else wanted, {"num_cpus": 1, "num_gpus": 1}
    else:
        cpus = [int(resources["CPU"]) for resources in alive if resources.get("CPU", 0) >= 1]
        count = len(cpus) if wanted is None else wanted
        fitting = (each for each in range(max(cpus, default=1), 0, -1) if sum(one // each for one in cpus) >= count)
        takes = {"num_cpus": next(fitting, 1)}
    if count == 0:
        raise ConfigError("the cluster has no machine for a worker; add one, or say how many come with --ray-workers")
    return count, takes


def _reason(error: RayError) -> str:
    if isinstance(error, RayTaskError):
        cause = error.cause
        return str(cause) if isinstance(cause, SlimeError) else f"{type(cause).__name__}: {one_line(cause)}"
    # What follows names actors and log files.
    return str(error).strip().split("\n")[0]


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one, for as long as the block runs.

    Raises:
        ConfigError: There is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address == LOCAL:
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        _check_listens(address)
        ray.init(address=address, **options)
    # Ray has no kind of error for it.
    except Exception as error:
        advice = "try again when the machine is less busy" if address == LOCAL else "start one with ray start --head"
        raise ConfigError(f"--ray {address}: no cluster answers ({one_line(error)}); {advice}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Check that something listens at HOST:PORT, for which Ray itself takes minutes.

    Raises:
        OSError: Nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
