"""Models with characters: their slots hold what answers copy from, and answers together are those alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slime_vlm.errors import ConfigError
from slime_vlm.inference.answering import encode
from slime_vlm.model.answer_finder import NOWHERE
from slime_vlm.serving.answer_state import AnswerState
from slime_vlm.serving.encoder_cache import EncoderCache
from slime_vlm.serving.jobs import Done, Event, Failed, Job, JobImage, Started, Text, Views
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.scheduler import Scheduler
from slime_vlm.serving.settings import Settings
from slime_vlm.serving.token_choice import TokenChoice
from tests.training.pages.test_join import OTHER_QUESTION, QUESTION, image, model_of
from tests.training.pages.words.test_answerer import NOT_THERE

NEW = 12


def scheduler(loaded: tuple[Any, Any], **settings: Any) -> Scheduler:
    return Scheduler(*loaded, EncoderCache(1 << 24), Settings(**{"max_tokens": NEW, **settings}), Metrics())


def views_of(processor: Any, seed: int) -> JobImage:
    drawn, settings = image(seed), processor.image_processor
    views = torch.cat(list(settings.stream_views(drawn, 99, "local")))
    pixels = (
        views * torch.tensor(settings.image_std).view(1, 3, 1, 1) + torch.tensor(settings.image_mean).view(1, 3, 1, 1)
    ) * 255
    return JobImage(
        str(seed),
        settings.max_tiles,
        False,
        Views((drawn.height, drawn.width), pixels.round().byte().permute(0, 2, 3, 1).numpy(), 0.0),
    )


def job(processor: Any, *turns: str, seeds: tuple[int, ...] = (0,), **fields: Any) -> tuple[Job, list[Event]]:
    events: list[Event] = []
    messages: list[dict[str, Any]] = []
    for number, text in enumerate(turns):
        blocks = [{"type": "image"} for _ in seeds] if not number else []
        content: Any = [*blocks, {"type": "text", "text": text}] if number % 2 == 0 else text
        messages.append({"role": ("user", "assistant")[number % 2], "content": content})
    return Job(messages, [views_of(processor, seed) for seed in seeds], events.append, **fields), events


def run(running: Scheduler, steps: int = 2000) -> None:
    for _ in range(steps):
        if running.is_idle:
            return
        running.step()
    raise AssertionError("it does not end")


def text_of(events: list[Event]) -> str:
    assert isinstance(events[-1], Done), events
    return "".join(event.text for event in events if isinstance(event, Text))


def generated(loaded: tuple[Any, Any], one: Job, seeds: tuple[int, ...]) -> str:
    """The answer of `generate`, alone."""
    model, processor = loaded
    left = iter(seeds)
    chat = [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [
                b if b["type"] == "text" else {"type": "image", "image": image(next(left))} for b in message["content"]
            ],
        }
        for message in one.messages
    ]
    inputs = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    found: str = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return found


@pytest.mark.parametrize(
    ("copies", "guided"), [(True, True), (True, False), (False, True)], ids=["copies", "unguided", "writes"]
)
@pytest.mark.parametrize(("slots", "chunk"), [(6, 512), (3, 5)])
def test_together_as_alone(copies: bool, guided: bool, slots: int, chunk: int) -> None:
    loaded = model_of(copies, guided, max_local_tokens=9)
    model, processor = loaded
    questions = [QUESTION, OTHER_QUESTION, "7", "due?", "a b c d e f g", "?!"]
    jobs = [job(processor, text, seeds=(number % 4,)) for number, text in enumerate(questions)]
    running = scheduler(loaded, slots=slots, prefill_chunk=chunk)
    # They begin and end at other times, so rows move.
    for number, (one, _) in enumerate(jobs):
        one.max_new_tokens = NEW - number % 3 * 4
        running.waiting.append(one)
        running.step()
    run(running)
    together = [text_of(events) for _, events in jobs]
    alone = [
        encode(model, processor, image(number % 4)).ask(text, max_new_tokens=NEW - number % 3 * 4).text
        for number, text in enumerate(questions)
    ]
    assert together == alone
    assert len(set(alone)) > 3
    assert running._state is None


def test_several_turns_and_images_and_text_alone() -> None:
    loaded = model_of(max_local_tokens=9)
    cases = [
        ((QUESTION, "41.50", OTHER_QUESTION), (0,)),
        ((QUESTION,), (0, 1)),
        ((QUESTION, "4", "due?", "no", "total?"), (2, 0)),
        ((OTHER_QUESTION,), ()),
    ]
    jobs = [job(loaded[1], *turns, seeds=seeds) for turns, seeds in cases]
    running = scheduler(loaded, prefill_chunk=7)
    running.waiting.extend(one for one, _ in jobs)
    run(running)
    for (one, events), (_, seeds) in zip(jobs, cases, strict=True):
        assert text_of(events) == generated(loaded, one, seeds)


def test_counts_are_of_what_the_language_model_gets() -> None:
    loaded = model_of(max_local_tokens=9)
    one, events = job(loaded[1], QUESTION)
    running = scheduler(loaded, max_length=30)
    running.waiting.append(one)
    run(running)
    assert isinstance(events[0], Started)
    # Beginning, question and answer begin; what s the subtotal due.
    assert (events[0].usage.text, events[0].usage.local) == (3 + 4, 9)
    assert events[0].images[0]["tokens"]["kept"] == 9
    # All places and letters have a position; only 16 tokens have room in the row.
    assert events[0].usage.local_before + len(QUESTION) > 30
    positions = scheduler(loaded, max_length=30)
    positions._max_positions = events[0].usage.local_before + 8
    one, events = job(loaded[1], QUESTION, max_new_tokens=9)
    positions.waiting.append(one)
    run(positions)
    assert isinstance(events[0], Failed)
    assert events[0].code == "context_length_exceeded"


def test_a_bias_and_suppressed_tokens_are_those_of_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = model_of(max_local_tokens=9)
    model, processor = loaded
    before = encode(model, processor, image()).ask(QUESTION, max_new_tokens=NEW).text
    never = processor.tokenizer(before[0], add_special_tokens=False).input_ids
    for bias in ({(NOT_THERE,): 50.0}, [[[NOT_THERE], 50.0]]):
        monkeypatch.setattr(model.generation_config, "sequence_bias", bias)
        one, events = job(processor, QUESTION, max_new_tokens=1)
        running = scheduler(loaded)
        running.waiting.append(one)
        run(running)
        assert text_of(events) == "not on this page"
        assert encode(model, processor, image()).ask(QUESTION, max_new_tokens=1).text == "not on this page"
    monkeypatch.setattr(model.generation_config, "sequence_bias", {(NOT_THERE, 5): 1.0})
    with pytest.raises(ConfigError, match="sequence_bias for the 2 tokens"):
        scheduler(loaded)
    monkeypatch.setattr(model.generation_config, "sequence_bias", None)
    monkeypatch.setattr(model.generation_config, "suppress_tokens", [*model.generation_config.suppress_tokens, *never])
    one, events = job(processor, QUESTION)
    running = scheduler(loaded)
    running.waiting.append(one)
    run(running)
    assert text_of(events) == encode(model, processor, image()).ask(QUESTION, max_new_tokens=NEW).text != before


def test_a_choice_by_hand() -> None:
    model, _ = model_of()
    choice = TokenChoice(model)
    size = model.config.text_config.vocab_size
    count = len(model.config.characters)
    found = choice.allowed(torch.zeros(1, size))[0]
    # Nothing, and what begins a text, a question and an answer.
    assert (found == -torch.inf).nonzero()[:, 0].tolist() == [0, count + 2, count + 3, count + 4]
    assert choice.ends == {count + 5}


def test_rows_join_and_leave_in_any_order() -> None:
    """What a row knows does not depend on the rows beside it."""

    def row(number: int, num_local: int, num_cells: int) -> AnswerState:
        from slime_vlm.model.copying import Copying

        copying = Copying(
            page=torch.full((1, num_cells, 2), number),
            following=torch.full((1, num_cells * 2), number),
            words=torch.full((1, num_cells, 3), float(number)),
            own_words=torch.full((1, num_cells, 3), float(number)),
            location=torch.tensor([number]),
            places=torch.full((1, num_local, 2), float(number)),
            wrote_space=torch.tensor([number % 2 == 0]),
            ends=torch.full((1, num_cells), -float(number)),
        )
        columns = torch.full((1, num_local), number)
        return AnswerState(torch.full((1, 3), float(number)), columns, columns, copying, [(num_local, num_cells)])

    state = row(1, 4, 9).followed_by(row(2, 2, 30)).followed_by(row(3, 7, 5))
    assert state.columns.tolist() == [[1] * 4 + [0] * 3, [2] * 2 + [0] * 5, [3] * 7]
    assert state.cells[1].tolist() == [2, 2, -1, -1, -1, -1, -1]
    assert state.copying is not None
    assert state.copying.following.shape == (3, 60)
    left = state.without(0)
    assert left is not None
    # The last took the place, and nothing is longer than the longest that is left.
    assert left.question[:, 0].tolist() == [3, 2]
    assert left.sizes == [(7, 5), (2, 30)]
    assert left.copying is not None
    assert left.copying.following[0].tolist() == [3] * 10 + [-1] * 50
    assert left.copying.ends is not None
    assert left.copying.ends[0].tolist() == [-3.0] * 5 + [NOWHERE] * 25
    last = left.without(1)
    assert last is not None
    assert last.copying is not None
    assert torch.equal(last.copying.page, torch.full((1, 5, 2), 3))
    assert last.without(0) is None
