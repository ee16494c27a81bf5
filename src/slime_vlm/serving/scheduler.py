"""Continuous batching: answers are decoded together, requests join between steps and leave when they are done.

A step does at most one unit of work for a request that has no token yet, then decodes one token for every answer under
way. A unit is a chunk of a prompt for the language model, or a chunk of views where `image_encoder` does not encode
them beside the steps. So a long request delays the others by one unit at a time.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from slime_vlm.errors import ConfigError, InputError, SlimeError
from slime_vlm.model.cache_name import CACHE
from slime_vlm.serving.answer_state import AnswerState
from slime_vlm.serving.encoder_cache import EncoderCache, Prefix
from slime_vlm.serving.image_encoder import Encoding, ImageEncoder
from slime_vlm.serving.jobs import Done, Failed, Job, JobImage, Started, Text, Usage
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.prefill import Layers, Prefilled, prefill
from slime_vlm.serving.prompts import Prompt, write_prompt
from slime_vlm.serving.sampling import Sampler
from slime_vlm.serving.settings import Settings
from slime_vlm.serving.slots import SlotCache
from slime_vlm.serving.text_output import TextOutput
from slime_vlm.serving.token_choice import TokenChoice

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

_LOG = logging.getLogger("slime_vlm.serving")
_T = TypeVar("_T")
# Pauses before every further unit of work. Gives the image to wait for, or whether the unit is a prefill.
_Units: TypeAlias = Generator[Encoding | bool | None, None, _T]


@dataclass(eq=False)
class _Starting:
    """A request without a token yet, and what its next unit of work is or waits for."""

    units: _Units[None]
    encoding: Encoding | None = None
    is_prefill: bool = False

    @property
    def is_ready(self) -> bool:
        return self.encoding is None or self.encoding.is_free or self.encoding.future.done()


@dataclass(eq=False)
class _Row:
    """An answer under way. Its index in the list of rows is its slot."""

    job: Job
    usage: Usage
    output: TextOutput
    sampler: Sampler
    limit: int
    token: int
    position: int
    start: float


class Scheduler:
    """Owns the model. All methods but `__init__` and `close` belong to one thread.

    Args:
        model: The model.
        processor: Its processor.
        cache: Encoded images.
        settings: Settings of the server.
        metrics: Counters of the server.

    Attributes:
        waiting: Requests that wait for a slot.
        slots: The keys and values of answers under way.
        encoder: What encodes the images.

    Raises:
        ConfigError: The language model is of a kind that the scheduler cannot run.
    """

    def __init__(
        self,
        model: SlimeForConditionalGeneration,
        processor: SlimeProcessor,
        cache: EncoderCache,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.model, self.processor, self.cache = model, processor, cache
        self.settings, self.metrics = settings, metrics
        self.max_length = _longest_row(model.config, settings.max_length)
        self._max_positions = getattr(model.config.text_config, "max_position_embeddings", None)
        self.waiting: deque[Job] = deque()
        self.slots = SlotCache(settings.slots, self.max_length)
        self._starting: dict[Job, _Starting] = {}
        self._rows: list[_Row] = []
        self._state: AnswerState | None = None
        self._last_was_prefill = False
        self.encoder = ImageEncoder(model, processor, cache, metrics)
        self._choice = TokenChoice(model)

    @property
    def num_running(self) -> int:
        """Number of requests that have a slot."""
        return len(self._starting) + len(self._rows)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self._starting or self._rows)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything. Else all requests under way wait for their images."""
        can_start = bool(self.waiting) and self.num_running < self.settings.slots
        return can_start or bool(self._rows) or any(start.is_ready for start in self._starting.values())

    def wait(self, seconds: float) -> None:
        """Wait for an image, if that is all that can be done."""
        if self.is_idle or self.has_work:
            return
        futures = [start.encoding.future for start in self._starting.values() if start.encoding is not None]
        concurrent.futures.wait(futures, seconds, concurrent.futures.FIRST_COMPLETED)

    def step(self) -> None:
        """Do a unit of work for a starting request, and decode one token for every answer under way."""
        with torch.inference_mode():
            self._drop_given_up()
            self.encoder.take_share()
            while self.waiting and self.num_running < self.settings.slots:
                job = self.waiting.popleft()
                job.seconds["queue"] = time.perf_counter() - job.arrival
                self._starting[job] = _Starting(self._start(job))
                self._advance(job)
            ready = [job for job, start in self._starting.items() if start.is_ready]
            if ready:
                # Requests take turns between encoding and prefill: neither kind waits for all of the other.
                turn = [job for job in ready if self._starting[job].is_prefill != self._last_was_prefill]
                job = (turn or ready)[0]
                self._last_was_prefill = self._starting[job].is_prefill
                self._advance(job)
            if self._rows:
                self._decode()
        self.metrics.waiting.set(len(self.waiting))
        self.metrics.running.set(self.num_running)

    def close(self) -> None:
        """Give up all requests without a word, at the end."""
        self._clear()
        self.encoder.stop()

    def fail_all(self, message: str) -> None:
        """Fail every request, after an error that may have damaged the state of all."""
        for job in [*self.waiting, *self._starting, *(row.job for row in self._rows)]:
            job.emit(Failed(500, message))
        self._clear()

    def _clear(self) -> None:
        self.waiting.clear()
        for start in self._starting.values():
            start.units.close()
        self._starting.clear()
        self._rows.clear()
        self.slots.clear()
        self._state = None

    def _drop_given_up(self) -> None:
        now = time.monotonic()
        late = Failed(
            504, f"the request took longer than {self.settings.timeout:g} seconds; try again later", "timeout"
        )

        def is_over(job: Job) -> bool:
            if not job.cancelled and now > job.deadline:
                job.emit(late)
                job.cancelled = True
            return job.cancelled

        if any(is_over(job) for job in self.waiting):
            self.waiting = deque(job for job in self.waiting if not job.cancelled)
        for job in [job for job in self._starting if is_over(job)]:
            self._starting.pop(job).units.close()
        for index in reversed(range(len(self._rows))):
            if is_over(self._rows[index].job):
                self._leave(index)

    def _advance(self, job: Job) -> None:
        """Run a starting request up to its next unit of work."""
        try:
            start = self._starting[job]
            unit = next(start.units)
            start.encoding = unit if isinstance(unit, Encoding) else None
            start.is_prefill = unit is True
            return
        except StopIteration:
            pass
        except SlimeError as error:
            too_long = isinstance(error, _TooLong)
            job.emit(Failed(400, str(error), "context_length_exceeded" if too_long else None))
        except torch.OutOfMemoryError:
            job.emit(Failed(503, "the server's memory does not suffice for this request now; try again later"))
        except Exception:
            # Nothing of a request that starts is shared yet.
            _LOG.exception("a request failed")
            job.emit(Failed(500, "the model failed; the log of the server has more"))
        del self._starting[job]

    # The start of a request ----------------------------------------------------------------------------------------

    def _start(self, job: Job) -> _Units[None]:
        """Encode, select and prefill a request, up to its first token."""
        yield from self._encode_images(job)
        yield True
        start = time.perf_counter()
        prompt = write_prompt(self.model, self.processor, job)
        job.seconds["select"] = time.perf_counter() - start
        limit = self._limit(job, prompt)
        layers, cached = self._known_prefix(job, prompt.input_ids)
        start = time.perf_counter()
        chunks = prefill(self.model, prompt, layers, cached, self.settings.prefill_chunk)
        found: Prefilled = yield from _as_prefill(chunks)
        self._keep_prefix(job, prompt, found.layers)
        job.seconds["prefill"] = time.perf_counter() - start
        row = _Row(
            job,
            replace(prompt.usage, cached=cached),
            TextOutput(self.processor.tokenizer, job.stops),
            Sampler(job.sampling),
            limit,
            token=0,
            position=int(prompt.position_ids[0, -1]),
            start=time.perf_counter(),
        )
        self.metrics.first_token.observe(row.start - job.arrival)
        job.emit(Started(row.usage, prompt.explained))
        token = row.sampler.choose(self._choice.allowed(found.logits))[0]
        if not self._take(row, token):
            self.slots.join(found.layers)
            self._rows.append(row)
            if found.state is not None:
                self._state = found.state if self._state is None else self._state.followed_by(found.state)

    def _encode_images(self, job: Job) -> _Units[None]:
        """Wait until the images of a request are encoded, or do so."""
        start = time.perf_counter()
        is_alone = self.num_running + len(self.waiting) == 1
        waiting: list[tuple[JobImage, Encoding]] = []
        try:
            for image in job.images:
                if image.cached is None:
                    # Another request may have encoded it meanwhile.
                    image.cached = self.cache.get(image.key)
                if image.cached is None:
                    waiting.append((image, self.encoder.start(image, is_alone)))
            for image, encoding in waiting:
                while not encoding.future.done():
                    yield encoding
                    if encoding.is_free:
                        yield from _advance_here(encoding)
                image.cached = encoding.future.result()
        finally:
            for _, encoding in waiting:
                self.encoder.leave(encoding)
        if waiting:
            job.seconds["encode"] = time.perf_counter() - start
        for image in job.images:
            image.views = None

    def _limit(self, job: Job, prompt: Prompt) -> int:
        """Return the length of the longest answer that fits."""
        length, most = prompt.usage.prompt, self.max_length
        # Dropped tokens may leave gaps between positions.
        next_position = int(prompt.position_ids[0, -1]) + 1
        if self._max_positions is not None and self._max_positions - next_position < most - length:
            length, most = next_position, self._max_positions
        room = most - length
        wanted = job.max_new_tokens
        if room < (wanted or 1):
            answer = "one token of the answer" if wanted is None else f"{wanted:,} tokens of the answer"
            raise _TooLong(
                f"the prompt has {length:,} tokens, and with {answer} it passes the limit of {most:,}; "
                "shorten it, or lower max_tokens, slime.max_tiles or slime.max_local_tokens"
            )
        return min(room, self.settings.max_tokens, wanted or room)

    def _known_prefix(self, job: Job, ids: Tensor) -> tuple[Layers, int]:
        """Return keys and values of the beginning of a prompt that its first image holds, and their number."""
        prefix = job.images[0].cached.prefix if job.images and job.images[0].cached else None
        if prefix is None or tuple(ids[0, : len(prefix.input_ids)].tolist()) != prefix.input_ids:
            return [], 0
        return list(prefix.layers), len(prefix.input_ids)

    def _keep_prefix(self, job: Job, prompt: Prompt, layers: Layers) -> None:
        """Keep what does not depend on the question for the next one about the same image."""
        # Characters before an image may be dropped, so that the first tokens of the prompt are not those of the cache.
        if not job.images or job.images[0].cached is None or self.model.config.characters is not None:
            return
        ids = prompt.input_ids
        layout = self.processor.token_layout
        first = int((ids[0] == self.processor.image_token_id).nonzero()[0])
        length = first + layout.num_global_tokens + layout.num_separators
        image, known = job.images[0].cached, tuple(ids[0, :length].tolist())
        if length and (image.prefix is None or image.prefix.input_ids != known):
            cut = tuple((keys[:, :, :length].clone(), values[:, :, :length].clone()) for keys, values in layers)
            image.prefix = Prefix(known, cut)
            self.cache.put(job.images[0].key, image)

    # Decoding ------------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Decode one token for every row."""
        logits = self._choice.allowed(self._next_logits())
        greedy = logits.argmax(dim=-1).tolist()
        for index in reversed(range(len(self._rows))):
            row = self._rows[index]
            is_drawn = row.job.sampling.temperature > 0
            token = row.sampler.choose(logits[index : index + 1])[0] if is_drawn else greedy[index]
            if self._take(row, token):
                self._leave(index)
        self.metrics.steps.inc()

    def _next_logits(self) -> Tensor:
        """Run the language model on the last token of every row, and return logits [rows, vocabulary]."""
        device, state, rows = self.model.device, self._state, self._rows
        said = torch.tensor([row.token for row in rows], device=device)
        options: dict[str, Any] = {}
        if state is None:
            embeddings = self.model.get_input_embeddings()(said[:, None])
        else:
            count = torch.tensor([row.usage.new for row in rows], device=device)
            embeddings, follows = state.say(self.model, said, count)
            if state.copying is not None:
                options["pointing"] = []
        for row in rows:
            row.position += 1
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=self.slots.begin_step(embeddings.dtype),
            position_ids=torch.tensor([[row.position] for row in rows], device=device),
            use_cache=True,
            **{CACHE: self.slots},
            **options,
        ).last_hidden_state[:, -1]
        if state is None or state.copying is None:
            return self.model.logits_of(hidden).float()
        pointing = state.pointing(self.model, options["pointing"][0][:, -1])
        state.note(self.model, hidden, pointing)
        return state.mixed(self.model, hidden, pointing, follows)

    def _take(self, row: _Row, token: int) -> bool:
        """Add a token to an answer, and return whether it was the last one."""
        row.token = token
        row.usage = replace(row.usage, new=row.usage.new + 1)
        self.metrics.tokens.inc()
        is_end = token in self._choice.ends
        text = "" if is_end else row.output.push(token)
        reason = "stop" if is_end or row.output.stopped else "length" if row.usage.new >= row.limit else None
        if reason is not None:
            text += row.output.finish()
            reason = "stop" if row.output.stopped else reason
        if text:
            row.job.emit(Text(text))
        if reason is None:
            return False
        row.job.seconds["decode"] = time.perf_counter() - row.start
        row.job.emit(Done(reason, row.usage, row.job.seconds))
        return True

    def _leave(self, index: int) -> None:
        """Free the slot of a row. The last row moves into it."""
        last = self._rows.pop()
        if index < len(self._rows):
            self._rows[index] = last
        self.slots.leave(index)
        if self._state is not None:
            self._state = self._state.without(index)


def _advance_here(encoding: Encoding) -> _Units[None]:
    """Encode an image in this thread. When the request is given up, the next one that waits goes on."""
    encoding.is_held = True
    try:
        while encoding.advance():
            yield False
    finally:
        encoding.is_held = False


def _as_prefill(chunks: Generator[None, None, _T]) -> _Units[_T]:
    """Mark the pauses of a prefill as such."""
    while True:
        try:
            next(chunks)
        except StopIteration as end:
            found: _T = end.value
            return found
        yield True


class _TooLong(InputError):
    """A prompt that does not fit."""


def _longest_row(config: Any, wanted: int) -> int:
    """Return the longest row that the language model takes, at most the wanted one."""
    text = config.text_config
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"]) - {"full_attention", "sliding_attention"}
    if kinds:
        raise ConfigError(f"the language model has layers of kind {', '.join(kinds)}, which the server does not run")
    limits = [wanted, config.max_sequence_length, getattr(text, "max_position_embeddings", None)]
    if getattr(text, "use_sliding_window", True):
        # Within the window all layers see everything.
        limits.append(getattr(text, "sliding_window", None))
    return min(limit for limit in limits if limit)
