"""What becomes of records whose workers are lost, with a made-up Ray. tests/clusters has the real one."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slime_vlm.batch.options import JobOptions
from slime_vlm.batch.ray_worker import Outcome
from slime_vlm.batch.records import Asked
from slime_vlm.errors import CheckpointError, ConfigError, DataError
from slime_vlm.media import open_input
from slime_vlm.serving.settings import Settings


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("a long traceback")
        self.cause = cause


@dataclass(eq=False)
class Ref:
    """A result, and the worker that makes it."""

    worker: Any
    make: Callable[[], Any]


@dataclass
class MadeUpRay:
    """Workers that answer at once, in the order in which they were asked, and die as a test says.

    Attributes:
        dies: Whether a worker dies of a record.
        fails: What a worker raises when it starts, by its number, or None.
    """

    dies: Callable[[int], bool] = lambda index: False
    fails: Callable[[int], Exception | None] = lambda number: None
    cpus: int = 2
    workers: list[Any] = field(default_factory=list)
    asked: list[list[int]] = field(default_factory=list)
    most_at_once: int = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}] * self.cpus

    def init(self, **options: Any) -> None:
        if options["address"] == "nowhere":
            raise ConnectionError("could not\nfind any")

    def shutdown(self) -> None:
        pass

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._start))

    def _start(self) -> Any:
        worker = SimpleNamespace(number=len(self.workers), is_dead=False, open=[])
        self.workers.append(worker)

        def load() -> None:
            if (error := self.fails(worker.number)) is not None:
                raise error

        def answer(index: int) -> Outcome:
            worker.is_dead = worker.is_dead or self.dies(index)
            if worker.is_dead:
                raise RayError(f"The actor died.\nclass_name: Worker {worker.number}")
            return Outcome({"answer": f"answer {index}"}) if index != 5 else Outcome(error="no such file")

        def ask(index: int, _: Asked) -> Ref:
            ref = Ref(worker, lambda: answer(index))
            worker.open.append(index)
            self.asked.append(list(worker.open))
            self.most_at_once = max(self.most_at_once, len(worker.open))
            return ref

        worker.load = SimpleNamespace(remote=lambda *_: Ref(worker, load))
        worker.answer = SimpleNamespace(remote=ask)
        return worker

    def wait(self, refs: list[Ref], timeout: float) -> tuple[list[Ref], list[Ref]]:
        return refs[:1], refs[1:]

    def get(self, ref: Ref) -> Any:
        made = ref.make()
        if ref.worker.open:
            ref.worker.open.pop(0)
        return made

    def kill(self, worker: Any) -> None:
        worker.is_dead = True


@dataclass
class Job:
    """A job on a made-up cluster, and what came of it."""

    ray: MadeUpRay
    module: Any
    answers: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def run(self, count: int = 20, read: Callable[[int], Asked] | None = None, **fields: Any) -> Job:
        options = JobOptions(
            "records", Path("out"), "nano", Settings(slots=2), open_input, **{"ray": "local", "device": "cpu", **fields}
        )

        def on_answer(index: int, fields: dict[str, Any]) -> None:
            assert index not in self.answers | self.errors
            self.answers[index] = fields["answer"]

        def on_error(index: int, message: str) -> None:
            assert index not in self.answers | self.errors
            self.errors[index] = message

        run = self.module.RayRun(options, Path("images"), "weights", on_answer, on_error, self.said.append)
        run.run(range(count), read or (lambda index: Asked([], [])))
        return self


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    found, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    made_up = MadeUpRay()
    for name in ("nodes", "init", "shutdown", "remote", "wait", "get", "kill"):
        setattr(found, name, getattr(made_up, name))
    exceptions.RayError, exceptions.RayTaskError = RayError, RayTaskError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delitem(sys.modules, "slime_vlm.batch.ray_run", raising=False)
    yield Job(made_up, importlib.import_module("slime_vlm.batch.ray_run"))
    sys.modules.pop("slime_vlm.batch.ray_run", None)


RIGHT = {index: f"answer {index}" for index in range(20) if index != 5}


def test_every_record_is_answered_once_and_both_workers_have_some(job: Job) -> None:
    job.run()
    assert (job.answers, job.errors) == (RIGHT, {5: "no such file"})
    assert len(job.ray.workers) == 2
    # Two that decode and two whose images are opened.
    assert job.ray.most_at_once == 4
    assert job.said == []


def test_a_record_that_cannot_be_read_ends_nothing(job: Job) -> None:
    def read(index: int) -> Asked:
        if index in (3, 4):
            raise DataError("record 0 has the same id") if index == 3 else KeyError("image")
        return Asked([], [])

    job.run(read=read)
    assert job.answers == {index: text for index, text in RIGHT.items() if index not in (3, 4)}
    assert "record 0 has the same id" in job.errors[3]
    assert job.errors[4] == "KeyError: 'image'"


def test_lost_workers_lose_no_record(job: Job) -> None:
    died: Counter[int] = Counter()

    def dies(index: int) -> bool:
        died[index] += 1
        return index in (2, 11) and died[index] == 1

    job.ray.dies = dies
    job.run()
    assert (job.answers, job.errors) == (RIGHT, {5: "no such file"})
    assert len(job.ray.workers) == 4
    assert len(job.said) == 2
    assert all("a worker was lost" in line and "The actor died." in line and "\n" not in line for line in job.said)


def test_a_record_that_kills_its_workers_is_given_up_and_takes_no_other_with_it(job: Job) -> None:
    job.ray.dies = lambda index: index in (2, 3)
    job.run()
    lost = "3 workers were lost with this record; the last one: The actor died."
    assert job.errors == {5: "no such file", 2: lost, 3: lost}
    assert job.answers == {index: text for index, text in RIGHT.items() if index not in (2, 3)}
    # After its first loss it is alone with its worker.
    assert [held for held in job.ray.asked if 2 in held and len(held) == 1][-2:] == [[2], [2]]


def test_workers_that_cannot_start(job: Job) -> None:
    # One machine of two lacks the model, the other one is lost twice before it starts.
    job.ray.fails = lambda number: {
        0: RayTaskError(CheckpointError("/models/x: no such folder")),
        1: RayError("The node died.\nmore"),
        2: RayTaskError(OSError("a full\ndisk")),
    }.get(number)
    job.run()
    assert (job.answers, job.errors) == (RIGHT, {5: "no such file"})
    assert job.said == ["a worker cannot start, 1 go on without it: /models/x: no such folder"]
    assert len(job.ray.workers) == 4


def test_no_worker_can_start(job: Job) -> None:
    job.ray.fails = lambda number: RayTaskError(ConfigError("no CUDA here"))
    with pytest.raises(ConfigError, match="no worker can start: no CUDA here"):
        job.run()
    job.ray.fails = lambda number: RayTaskError(OSError("a full\ndisk"))
    with pytest.raises(ConfigError, match="no worker can start: OSError: a full disk"):
        job.run(ray_workers=1)
    assert not job.answers


def test_no_cluster(job: Job) -> None:
    with pytest.raises(ConfigError, match=r"--ray nowhere: no cluster answers \(could not find any\); start one"):
        job.run(ray="nowhere")
    with pytest.raises(ConfigError, match=r"--ray 127.0.0.1:1: no cluster answers .*refused"):
        job.run(ray="127.0.0.1:1")


def test_how_many_workers_there_are(job: Job) -> None:
    def machine(**resources: float) -> dict[str, Any]:
        return {"Alive": True, "Resources": {"memory": 1e9, **resources}}

    plan = job.module.workers_for
    cpus = [machine(CPU=8), machine(CPU=12), machine(), {**machine(CPU=99), "Alive": False}]
    assert plan(cpus, None, None) == (2, {"num_cpus": 8})
    assert plan(cpus, None, 4) == (4, {"num_cpus": 4})
    assert plan(cpus, None, 1) == (1, {"num_cpus": 12})
    assert plan(cpus, None, 50) == (50, {"num_cpus": 1})
    gpus = [*cpus, machine(CPU=16, GPU=4)]
    assert plan(gpus, None, None) == plan(gpus, "cuda", None) == (4, {"num_cpus": 1, "num_gpus": 1})
    assert plan(gpus, "cpu", None) == (3, {"num_cpus": 8})
    assert plan([], None, 5) == (5, {"num_cpus": 1})
    with pytest.raises(ConfigError, match="the cluster has no machine for a worker"):
        plan([machine()], None, None)
