"""The scheduler step by step, and its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.serving.decoding_worker import DecodeOptions, decode
from slime_vlm.serving.encoder_cache import CachedImage, EncoderCache
from slime_vlm.serving.jobs import Done, Event, Failed, Job, JobImage, Sampling, Started, Text, Views
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.sampling import Sampler
from slime_vlm.serving.scheduler import Scheduler
from slime_vlm.serving.settings import Settings
from slime_vlm.serving.slots import SlotCache
from slime_vlm.serving.text_output import TextOutput
from tests.conftest import tiny_model
from tests.serving.conftest import Loaded, drawn, png


def scheduler(loaded: Loaded, cache_bytes: int = 1 << 20, **settings: Any) -> Scheduler:
    return Scheduler(*loaded, EncoderCache(cache_bytes), Settings(**settings), Metrics())


def job(question: str, image: Image.Image | None = None, **fields: Any) -> tuple[Job, list[Event]]:
    events: list[Event] = []
    images = []
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if image is not None:
        options = DecodeOptions(56, 4, "both", Image.Resampling.BICUBIC, "pillow", 10**6, None, 200, None)
        size, views = decode(png(image), options)
        images = [JobImage(str(hash(image.tobytes())), 4, False, Views(size, views, 0.0))]
        content.insert(0, {"type": "image"})
    return Job([{"role": "user", "content": content}], images, events.append, **fields), events


def run(scheduler: Scheduler, steps: int = 2000) -> None:
    for _ in range(steps):
        if scheduler.is_idle:
            return
        scheduler.step()
    raise AssertionError("it does not end")


def answer(events: list[Event]) -> str:
    assert isinstance(events[-1], Done), events
    return "".join(event.text for event in events if isinstance(event, Text))


def test_a_request_joins_between_steps_and_one_that_is_done_leaves(tiny: Loaded) -> None:
    running = scheduler(tiny)
    long, events = job("long", drawn("a"), max_new_tokens=30)
    running.waiting.append(long)
    while sum(isinstance(event, Text) for event in events) < 3:
        running.step()
    short, others = job("short", max_new_tokens=2)
    running.waiting.append(short)
    running.step()
    # Its prefill and its second token took one step, in which the other went on.
    assert isinstance(others[-1], Done)
    assert running.num_running == 1
    run(running)
    assert isinstance(events[-1], Done)
    assert running.slots.num_rows == 0


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_the_size_of_chunks_changes_no_answer(tiny: Loaded, chunk: int) -> None:
    image = drawn("chunks", 150, 150)
    expected, found = ([], [])
    for size, target in ((512, expected), (chunk, found)):
        one, events = job("What does it say?", image, max_new_tokens=12)
        running = scheduler(tiny, prefill_chunk=size)
        running.waiting.append(one)
        run(running)
        target.append(answer(events))
    assert found == expected


def test_a_long_prompt_is_processed_between_the_steps_of_others(tiny: Loaded) -> None:
    running = scheduler(tiny, prefill_chunk=8)
    first, events = job("first", max_new_tokens=60)
    running.waiting.append(first)
    while not any(isinstance(event, Text) for event in events):
        running.step()
    second, others = job("second " * 20, drawn("b"), max_new_tokens=1)
    running.waiting.append(second)
    tokens, steps = running.metrics.tokens._value.get(), 0
    while not others:
        running.step()
        steps += 1
    # One token of the first in every step, and at the end the first one of the second.
    assert steps > 10
    assert running.metrics.tokens._value.get() - tokens == steps + 1


def test_who_leaves_frees_the_place_within_a_step(tiny: Loaded) -> None:
    running = scheduler(tiny, slots=2)
    jobs = [job(f"number {number}", drawn(str(number)), max_new_tokens=40) for number in range(3)]
    running.waiting.extend(one for one, _ in jobs)
    for _ in range(30):
        running.step()
    assert (running.num_running, len(running.waiting)) == (2, 1)
    jobs[0][0].cancelled = True
    running.step()
    assert (running.num_running, len(running.waiting)) == (2, 0)
    run(running)
    assert isinstance(jobs[1][1][-1], Done)
    assert isinstance(jobs[2][1][-1], Done)
    assert not isinstance(jobs[0][1][-1], Done)
    # The others are as alone.
    alone, events = job("number 1", drawn("1"), max_new_tokens=40)
    running.waiting.append(alone)
    run(running)
    assert answer(events) == answer(jobs[1][1])


def test_a_request_that_takes_too_long_is_given_up(tiny: Loaded) -> None:
    running = scheduler(tiny)
    late, events = job("late", deadline=0.0)
    running.waiting.append(late)
    running.step()
    assert running.is_idle
    assert isinstance(events[-1], Failed)
    assert events[-1].status == 504


def test_what_does_not_fit_is_refused(tiny: Loaded) -> None:
    running = scheduler(tiny, max_length=40)
    for question, limit in (("x" * 60, None), ("x", 39)):
        long, events = job(question, max_new_tokens=limit)
        running.waiting.append(long)
        run(running)
        assert isinstance(events[-1], Failed)
        assert (events[-1].status, events[-1].code) == (400, "context_length_exceeded")
    fits, events = job("x")
    running.waiting.append(fits)
    run(running)
    assert isinstance(events[0], Started)
    assert events[-1].usage.prompt + events[-1].usage.new <= 40  # type: ignore[union-attr]


def test_a_model_with_other_layers_is_refused(tiny: Loaded) -> None:
    model = tiny_model()
    model.config.text_config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ConfigError, match="linear_attention"):
        scheduler((model, tiny[1]))


def test_the_cache_of_images_keeps_to_its_bytes(tiny: Loaded) -> None:
    running = scheduler(tiny)
    for number in range(3):
        one, _ = job("a", drawn(str(number)), max_new_tokens=1)
        running.waiting.append(one)
        run(running)
    assert len(running.cache) == 3
    size = running.cache.num_bytes // 3
    images = [running.cache.get(key) for key in list(running.cache._images)]
    small = EncoderCache(2 * size)
    for number, image in enumerate(images):
        assert isinstance(image, CachedImage)
        small.put(str(number), image)
        small.get("0")
    assert [small.get(str(number)) is not None for number in range(3)] == [True, False, True]
    assert small.num_bytes == 2 * size
    small.put("2", images[2])  # type: ignore[arg-type]
    assert small.num_bytes == 2 * size


def test_slots_move_and_grow() -> None:
    slots, rows = SlotCache(3, 600), [torch.randn(1, 2, length, 4) for length in (5, 300, 7)]
    for row in rows:
        slots.join([(row, row + 1)])
    slots.leave(0)
    assert slots.lengths == [7, 300]
    mask = slots.begin_step(torch.float32)
    assert (mask[:, 0, 0] == 0).sum(dim=1).tolist() == [8, 301]
    new = torch.randn(2, 2, 1, 4)
    keys, values = slots.update(new, new, 0)
    assert torch.equal(keys[0, :, :8], torch.cat([rows[2][0], new[0]], dim=1))
    assert torch.equal(values[1, :, :300], rows[1][0] + 1)


def test_text_comes_in_final_pieces(tiny: Loaded) -> None:
    tokenizer = tiny[1].tokenizer
    for text, stops, expected in (
        ("  Zoë says: é 漢字 🙂! ", [], "Zoë says: é 漢字 🙂!"),
        ("one STOP two", ["STOP"], "one"),
        ("one STO two", ["STOP"], "one STO two"),
        ("ends with ST", ["STOP"], "ends with ST"),
        (" \n ", [], ""),
    ):
        output = TextOutput(tokenizer, stops)
        pieces = []
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            pieces.append(output.push(token))
            if output.stopped:
                break
        whole = "".join([*pieces, output.finish()])
        assert whole == expected
        assert all("\ufffd" not in piece for piece in pieces)


def test_sampling_draws_by_the_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]]))
    draws = Sampler(Sampling(temperature=1.0, seed=0))
    counts = torch.bincount(torch.tensor([draws.choose(logits)[0] for _ in range(2000)])) / 2000
    assert torch.allclose(counts, torch.tensor([0.6, 0.3, 0.1]), atol=0.03)
    narrow = Sampler(Sampling(temperature=1.0, top_p=0.7, seed=0))
    assert {narrow.choose(logits)[0] for _ in range(200)} == {0, 1}
    assert Sampler(Sampling()).choose(logits) == [0]
    assert Sampler(Sampling(temperature=1e-308)).choose(logits) == [0]
