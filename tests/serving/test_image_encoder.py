"""Images are encoded beside the steps of the scheduler, each once, as long as a request waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import pytest
import torch

from slime_vlm.errors import InputError
from slime_vlm.serving.image_encoder import ImageEncoder
from slime_vlm.serving.jobs import Done, Failed
from slime_vlm.serving.scheduler import Scheduler
from tests.serving.conftest import Loaded, drawn
from tests.serving.test_scheduler import answer, job, run, scheduler


@pytest.fixture(params=[1, 4], ids=["between steps", "on threads"])
def running(tiny: Loaded, request: pytest.FixtureRequest) -> Scheduler:
    found = scheduler(tiny)
    found.encoder.cores = request.param
    return found


@pytest.fixture
def on_threads(tiny: Loaded) -> Scheduler:
    found = scheduler(tiny)
    found.encoder.cores = 4
    return found


def run_to_the_end(running: Scheduler) -> None:
    end = time.monotonic() + 60
    while not running.is_idle:
        assert time.monotonic() < end
        running.wait(1.0)
        running.step()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def encoded(running: Scheduler) -> float:
    return running.metrics.encoded._value.get()


def test_answers_equal_those_alone(tiny: Loaded, running: Scheduler) -> None:
    questions = [(f"question {number}", drawn(str(number), 100, 60 + 40 * number)) for number in range(5)]
    jobs = [job(question, image, max_new_tokens=8) for question, image in questions]
    running.waiting.extend(one for one, _ in jobs)
    run_to_the_end(running)
    assert encoded(running) == 5
    for (question, image), (_, events) in zip(questions, jobs, strict=True):
        alone, expected = job(question, image, max_new_tokens=8)
        other = scheduler(tiny)
        other.waiting.append(alone)
        run(other)
        assert answer(events) == answer(expected)


@pytest.mark.parametrize("is_first_alone", [False, True])
def test_an_image_of_several_requests_is_encoded_once(running: Scheduler, is_first_alone: bool) -> None:
    image = drawn("shared", 200, 200)
    jobs = [job(f"question {number}", image, max_new_tokens=3) for number in range(3)]
    running.waiting.append(jobs[0][0])
    if is_first_alone:
        running.step()
        assert encoded(running) == 0
    running.waiting.extend(one for one, _ in jobs[1:])
    run_to_the_end(running)
    assert encoded(running) == 1
    assert all(isinstance(events[-1], Done) for _, events in jobs)


def test_who_began_an_image_may_leave_those_who_wait_for_it(running: Scheduler) -> None:
    image = drawn("left", 200, 200)
    (first, events), (second, others) = (job(f"question {number}", image, max_new_tokens=3) for number in range(2))
    running.waiting.append(first)
    running.step()
    running.waiting.append(second)
    running.step()
    first.cancelled = True
    run_to_the_end(running)
    assert not events
    assert isinstance(others[-1], Done)
    assert encoded(running) == 1


def test_several_images_at_the_same_time(on_threads: Scheduler, tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_views, meeting = tiny[0].model.encode_views, threading.Barrier(4, timeout=60)

    def together(pixels: torch.Tensor) -> torch.Tensor:
        meeting.wait()
        return encode_views(pixels)

    monkeypatch.setattr(tiny[0].model, "encode_views", together)
    jobs = [job(f"question {number}", drawn(str(number), 50, 50), max_new_tokens=3) for number in range(4)]
    on_threads.waiting.extend(one for one, _ in jobs)
    run_to_the_end(on_threads)
    assert all(isinstance(events[-1], Done) for _, events in jobs)


def test_an_image_that_nobody_waits_for_is_given_up(
    on_threads: Scheduler, tiny: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[int] = []
    encode_views, goes_on = tiny[0].model.encode_views, threading.Event()

    def slow(pixels: torch.Tensor) -> torch.Tensor:
        views.append(len(pixels))
        assert goes_on.wait(60)
        return encode_views(pixels)

    monkeypatch.setattr(tiny[0].model, "encode_views", slow)
    (long, _), (other, events) = job("long", max_new_tokens=500), job("?", drawn("gone", 200, 200))
    on_threads.waiting.extend([long, other])
    on_threads.step()
    until(lambda: bool(views))
    long.cancelled = other.cancelled = True
    on_threads.step()
    assert on_threads.is_idle
    goes_on.set()
    until(lambda: on_threads.encoder._num_running == 0)
    assert not events
    assert encoded(on_threads) == 0
    assert views == [1]


def test_an_error_fails_the_requests_that_wait_for_the_image(
    running: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_encoder: ImageEncoder, _image: object) -> Generator[None, None, None]:
        raise InputError("no such view")
        yield

    monkeypatch.setattr(ImageEncoder, "_encode", refuse)
    image = drawn("bad", 100, 100)
    jobs = [job(f"question {number}", image, max_new_tokens=3) for number in range(2)]
    fine, events = job("text alone", max_new_tokens=3)
    running.waiting.extend([*(one for one, _ in jobs), fine])
    run_to_the_end(running)
    for _, found in jobs:
        assert isinstance(found[-1], Failed)
        assert (found[-1].status, found[-1].message) == (400, "no such view")
    assert isinstance(events[-1], Done)


def test_others_go_on_while_an_image_is_encoded(
    on_threads: Scheduler, tiny: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_views, goes_on = tiny[0].model.encode_views, threading.Event()
    monkeypatch.setattr(tiny[0].model, "encode_views", lambda pixels: (goes_on.wait(60), encode_views(pixels))[1])
    text, events = job("text", max_new_tokens=20)
    image, others = job("?", drawn("slow", 200, 200), max_new_tokens=2)
    on_threads.waiting.extend([text, image])
    while not any(isinstance(event, Done) for event in events):
        on_threads.step()
    assert not others
    goes_on.set()
    run_to_the_end(on_threads)
    assert isinstance(others[-1], Done)


def test_one_unit_a_step_without_threads(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    running, views = scheduler(tiny), []
    running.encoder.cores = 1
    encode_views = tiny[0].model.encode_views
    monkeypatch.setattr(tiny[0].model, "encode_views", lambda pixels: (views.append(1), encode_views(pixels))[1])
    jobs = [job(f"question {number}", drawn(str(number), 200, 200), max_new_tokens=3) for number in range(4)]
    running.waiting.extend(one for one, _ in jobs)
    while not running.is_idle:
        before = len(views)
        running.step()
        assert len(views) - before <= 1
    assert all(isinstance(events[-1], Done) for _, events in jobs)


def test_a_text_does_not_wait_for_an_image_that_began_before(tiny: Loaded) -> None:
    running = scheduler(tiny)
    (image, others), (text, events) = job("?", drawn("long", 200, 200), max_new_tokens=2), job("t", max_new_tokens=1)
    running.waiting.append(image)
    running.step()
    running.waiting.append(text)
    running.step()
    running.step()
    assert isinstance(events[-1], Done)
    assert not others
    run_to_the_end(running)
    assert isinstance(others[-1], Done)


def test_the_end_gives_up_all_images(running: Scheduler) -> None:
    jobs = [job(f"question {number}", drawn("end", 200, 200)) for number in range(3)]
    running.waiting.extend(one for one, _ in jobs)
    running.step()
    running.close()
    assert running.is_idle
    until(lambda: running.encoder._num_running == 0)
    assert not running.encoder._under_way


def test_threads_take_their_share_of_the_cores(running: Scheduler) -> None:
    encoder, before = running.encoder, torch.get_num_threads()
    encoder.cores = 8
    try:
        for images, share in ((0, 8), (1, 4), (3, 2), (8, 1)):
            encoder._num_running = images
            encoder.take_share()
            assert torch.get_num_threads() == share
    finally:
        torch.set_num_threads(before)
