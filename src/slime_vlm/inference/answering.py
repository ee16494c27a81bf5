"""Answer questions about an image or video: encode it once, ask any number of questions, see which tokens were kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList, TextStreamer
from transformers.cache_utils import Cache, DynamicCache

from slime_vlm.errors import InputError
from slime_vlm.inference.confidence import ProbabilityRecorder, calibrated
from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy
from slime_vlm.media import Clip, OpenedInput, TiledImage, to_rgb
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.cached_rows import CachedRows, attach_record, joined_cache, record_of
from slime_vlm.model.growing_cache import GrowingLayer, cache_after, growing_cache
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import Selection
from slime_vlm.model.tiling import TileGrid, frame_grid, tile_to_image_order

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

OnText = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """An answer about one image, and what it was made from. Per-token arrays are in image order.

    A turn of a conversation is a `conversation.Reply`: it may have several images, each selected for the question it
    entered with. A batch gives `batching.BatchAnswer`s, which only count tokens.

    Attributes:
        question: The question.
        text: The answer.
        selection: The local tokens that the language model processed, and the selector's scores.
        num_global: Number of global tokens that the language model processed.
        probabilities: float [L], the scores as probabilities. None without a selector.
        gates: float [N, 2], the weights of the two global adapters. None if the model has only one.
        seconds: Time by step: select, prefill and decode. The first question of an image adds preprocess and encode.
        confidence: Mean probability of the answer's tokens, in 0..1. Where the checkpoint has `answer_calibration`, the
            share of such answers that are right.
    """

    question: str
    text: str
    selection: LocalSelection
    num_global: int
    probabilities: np.ndarray | None
    gates: np.ndarray | None
    seconds: dict[str, float]
    confidence: float

    @property
    def grid(self) -> TileGrid:
        """Tiles of the image."""
        return self.selection.grid

    @property
    def kept(self) -> np.ndarray:
        """Local tokens that the language model processed, bool [L]."""
        return self.selection.kept

    @property
    def scores(self) -> np.ndarray | None:
        """The selector's scores, float [L]; None without a selector."""
        return self.selection.scores

    @property
    def num_local(self) -> int:
        """Number of local tokens of the image before selection."""
        return self.kept.size

    @property
    def num_kept(self) -> int:
        """Number of local tokens that the language model processed."""
        return int(self.kept.sum())

    @property
    def kept_indices(self) -> np.ndarray:
        """Indices of the kept local tokens, int [k]."""
        return np.flatnonzero(self.kept)

    def draw(self, image: OpenedInput) -> Image.Image:
        """Draw tiles and kept tokens over the image, or the frames of the video, see `heat_map.draw_overlay`."""
        canvas = image if isinstance(image, Image.Image) else drawing_copy(image, self.grid)
        return draw_overlay(canvas, self.selection, self.question, self.text, num_global=self.num_global)


@dataclass(frozen=True)
class CachedPrefix:
    """The part of a prompt that does not depend on the question, with its keys and values. Nothing of it is changed.

    Attributes:
        input_ids: [1, P] the prompt up to the last token that does not depend on the question.
        layers: Keys and values [1, heads, P, width] of these tokens in every layer.
        record: The record of these tokens, see `cached_rows`.
    """

    input_ids: Tensor
    layers: list[tuple[Tensor, Tensor]]
    record: CachedRows | None

    def fits(self, input_ids: Tensor, model: SlimeForConditionalGeneration) -> bool:
        """Whether a prompt [1, S] starts with this prefix, and the model has the device and type of the cache."""
        first = self.layers[0][0]
        where = model.get_input_embeddings().weight
        same = input_ids.device == self.input_ids.device and (first.device, first.dtype) == (where.device, where.dtype)
        return same and torch.equal(input_ids[:, : self.input_ids.shape[1]], self.input_ids)

    def cache(self) -> DynamicCache:
        """Return a cache that holds the prefix, for one question."""
        cache = cache_after(self.layers)
        attach_record(cache, self.record)
        return cache


@dataclass
class EncodedImage:
    """An image after the vision encoder, ready for any number of questions. `encode` makes it.

    All questions share the first part of the prompt, up to the image's global tokens. The language model processes it
    once, and its keys and values stay here as long as the model is neither moved nor changed. A model with a sliding
    window, or with a cache of fixed size, processes it again for every question.

    Attributes:
        model: The model that encoded the image and answers.
        processor: The model's processor.
        grid: Tiles of the image.
        tokens: Tokens of the image before selection.
        seconds: Time of the steps `preprocess` and `encode`. The first answer reports them.
    """

    model: SlimeForConditionalGeneration
    processor: SlimeProcessor
    grid: TileGrid
    tokens: VisionTokens
    seconds: dict[str, float]
    _prefix: CachedPrefix | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def num_global(self) -> int:
        """Number of global tokens."""
        return 0 if self.tokens.global_tokens is None else self.tokens.global_tokens.shape[0]

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = 256,
        kept: Tensor | None = None,
        on_text: OnText | None = None,
    ) -> Answer:
        """Answer one question with greedy decoding.

        Args:
            question: The question, without image placeholders.
            max_new_tokens: Maximum number of tokens of the answer.
            kept: bool [L] in the order of merging, the local tokens to keep. None lets the selector choose.
            on_text: Called with each piece of the answer as soon as it is final.

        Raises:
            InputError: The question is empty or contains the image placeholder.
        """
        clock = _Clock()
        prompt = self._prompt(question)
        with torch.inference_mode():
            kept, selection = self._selected(prompt, kept)
            clock.tick("select")
            streamer = TimedStreamer(self.processor.tokenizer, on_text)
            recorder = ProbabilityRecorder()
            ids = prompt["input_ids"]
            known = self._known_prefix(ids)
            output = self.model.generate(
                **prompt,
                vision_tokens=[self.tokens],
                kept_local_tokens=[kept],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                streamer=streamer,
                logits_processor=LogitsProcessorList([recorder]),
                return_dict_in_generate=True,
                **{CACHE: known},
            )
        clock.tick("prefill", until=streamer.first_token)
        clock.tick("decode")
        new_tokens = output.sequences[0, ids.shape[1] :]
        if known is None:
            self._prefix = self._shared_prefix(ids, getattr(output, CACHE), len(new_tokens))
        (mean,) = recorder.means([len(new_tokens)])
        return self._answer(question, new_tokens, mean, kept, selection, {**self._take_seconds(), **clock.seconds})

    def ask_together(self, questions: Sequence[str], *, max_new_tokens: int = 256, at_once: int = 16) -> list[Answer]:
        """Answer several questions with greedy decoding, and decode their answers together.

        Each prompt is processed by itself, as `ask` does. A step of decoding then reads the weights once for all
        answers. Logits equal those of `ask` up to rounding. Models whose caches cannot be joined answer one after
        the other: with sliding windows, with characters, or with a kind of cache in the generation config.

        Args:
            questions: The questions, without image placeholders.
            max_new_tokens: Maximum number of tokens of an answer.
            at_once: Maximum number of answers that are decoded together. Each needs memory for its keys and values.

        Returns:
            One answer per question, in the same order. Seconds of a step are its share of the time of all.

        Raises:
            InputError: A question is empty or contains the image placeholder.
        """
        if at_once < 1:
            raise InputError(f"at_once is {at_once}, expected at least 1")
        for question in questions:
            check_question(self.processor, question)
        if not self._can_join():
            return [self.ask(question, max_new_tokens=max_new_tokens) for question in questions]
        groups = [questions[start : start + at_once] for start in range(0, len(questions), at_once)]
        return [answer for group in groups for answer in self._ask_group(group, max_new_tokens)]

    @torch.inference_mode()
    def _ask_group(self, questions: Sequence[str], max_new_tokens: int) -> list[Answer]:
        clock = _Clock()
        prompts = [self._prompt(question) for question in questions]
        selected = [self._selected(prompt, None) for prompt in prompts]
        clock.tick("select")
        pairs = zip(prompts, selected, strict=True)
        # The last token stays for generate, which then chooses the first one of every answer by its own rules.
        cache = joined_cache([self._prefilled(prompt["input_ids"][:, :-1], kept) for prompt, (kept, _) in pairs])
        clock.tick("prefill")
        ids = [prompt["input_ids"] for prompt in prompts]
        length = max(row.shape[1] for row in ids)
        recorder = ProbabilityRecorder()
        generated = self.model.generate(
            input_ids=torch.cat([F.pad(row, (length - row.shape[1], 0)) for row in ids]),
            attention_mask=torch.cat([F.pad(torch.ones_like(row), (length - row.shape[1], 0)) for row in ids]),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([recorder]),
            **{CACHE: cache},
        )
        clock.tick("decode")
        seconds = {step: value / len(questions) for step, value in clock.seconds.items()}
        ends = self.model.generation_config.eos_token_id
        rows = [up_to_end(row, ends) for row in generated[:, length:].tolist()]
        means = recorder.means([len(row) for row in rows])
        return [
            self._answer(question, row, mean, kept, selection, {**self._take_seconds(), **seconds})
            for question, row, mean, (kept, selection) in zip(questions, rows, means, selected, strict=True)
        ]

    def _can_join(self) -> bool:
        model = self.model
        layers = growing_cache(model.config.text_config).layers
        has_plain_layers = bool(layers) and all(isinstance(layer, GrowingLayer) for layer in layers)
        # A row that is cut to a length may lose its last tokens.
        is_plain = model.config.characters is None and model.config.max_sequence_length is None
        settings = model.generation_config
        return (
            has_plain_layers and is_plain and settings.cache_implementation is None and settings.use_cache is not False
        )

    def _prefilled(self, input_ids: Tensor, kept: Tensor) -> DynamicCache:
        """Process a prompt [1, S], and return its keys and values."""
        cache = self._known_prefix(input_ids)
        is_known = cache is not None
        cache = growing_cache(self.model.config.text_config) if cache is None else cache
        self.model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            vision_tokens=[self.tokens],
            kept_local_tokens=[kept],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if not is_known:
            self._prefix = self._shared_prefix(input_ids, cache, 1)
        return cache

    def _prompt(self, question: str) -> dict[str, Tensor]:
        prompt = _encode_question(self.processor, question, self.grid)
        return {name: value.to(self.model.device) for name, value in prompt.items()}

    def _selected(self, prompt: dict[str, Tensor], kept: Tensor | None) -> tuple[Tensor, Selection | None]:
        """Return the local tokens to keep, bool [L], and what the selector said, None if it was not asked."""
        if kept is not None:
            return kept, None
        selection = self.model.select([self.tokens], **prompt)
        if selection is not None:
            return selection.kept[0], selection
        return torch.ones(self.tokens.num_local_tokens, dtype=torch.bool, device=self.model.device), None

    def _known_prefix(self, input_ids: Tensor) -> DynamicCache | None:
        """Return a cache with the beginning of a prompt [1, S], if it is known."""
        prefix = self._prefix
        return prefix.cache() if prefix is not None and prefix.fits(input_ids, self.model) else None

    def _take_seconds(self) -> dict[str, float]:
        """Return the seconds of preparing the image to the first answer, and 0 to the others."""
        shared, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return shared

    def _answer(
        self,
        question: str,
        new_tokens: Tensor | list[int],
        mean: float,
        kept: Tensor,
        selection: Selection | None,
        seconds: dict[str, float],
    ) -> Answer:
        scored = selection is not None and self.model.config.scores_tokens
        return Answer(
            question=question,
            text=self.processor.tokenizer.decode(new_tokens, skip_special_tokens=True).strip(),
            selection=self.local_selection(kept, selection.scores[0] if selection is not None and scored else None),
            num_global=self.num_global,
            probabilities=self.in_image_order(selection.probs[0]) if selection is not None and scored else None,
            gates=None if self.tokens.gates is None else self.tokens.gates.float().cpu().numpy(),
            seconds=seconds,
            confidence=calibrated(mean, self.model.config.answer_calibration),
        )

    def _shared_prefix(self, input_ids: Tensor, cache: Cache | None, num_new: int) -> CachedPrefix | None:
        """Copy the part that does not depend on the question from the cache of an answered prompt [1, S]."""
        # A sliding window drops the prefix. If the generation config names a kind of cache, generate accepts no other;
        # the config stays, since the model may be compiled for that kind.
        if cache is None or not all(isinstance(layer, GrowingLayer) for layer in cache.layers):
            return None
        if self.model.generation_config.cache_implementation is not None:
            return None
        images = (input_ids[0] == self.processor.image_token_id).nonzero()
        layout = self.processor.token_layout
        length = int(images[0]) + layout.num_global_tokens + layout.num_separators
        held = cache.get_seq_length()
        # The last new token was never processed. A prompt that was cut may end before the question.
        if not 0 < length < held - (num_new - 1):
            return None
        # Slices would keep the memory of the whole cache.
        layers = [(layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()) for layer in cache.layers]
        record = record_of(cache)
        return CachedPrefix(input_ids[:, :length], layers, None if record is None else record.cut(length))

    def local_selection(self, kept: Tensor, scores: Tensor | None) -> LocalSelection:
        """Describe which local tokens were kept, for drawing.

        Args:
            kept: bool [L] in the order of merging.
            scores: [L] in the order of merging, None where nothing was scored.
        """
        return LocalSelection(
            self.grid,
            self.processor.token_layout.tile_side,
            self.in_image_order(kept),
            None if scores is None else self.in_image_order(scores),
        )

    def in_image_order(self, values: Tensor) -> np.ndarray:
        """Reorder one value per local token [L] from the order of merging to image order."""
        array: np.ndarray = (values if values.dtype == torch.bool else values.float()).cpu().numpy()
        if self.model.config.local_merge == "spatial" or not array.size:
            return array
        return tile_to_image_order(array.reshape(self.grid.num_tiles, -1), self.grid.rows, self.grid.cols)


def encode(model: SlimeForConditionalGeneration, processor: SlimeProcessor, image: OpenedInput) -> EncodedImage:
    """Encode an image once, a chunk of views at a time. Only its tokens stay in memory, whatever its size.

    Args:
        model: A SliME model. `slime_vlm.load` returns it with its processor.
        processor: Its processor.
        image: An image of any size and mode, or the result of `media.open_input`.

    Raises:
        InputError: `image` is a path or an array, not an opened image.
    """
    start = time.perf_counter()
    if isinstance(image, Clip):
        return _encode_clip(model, processor, image, start)
    if not isinstance(image, Image.Image | TiledImage):
        raise InputError(
            f"image is of type {type(image).__name__}, expected an opened image: slime_vlm.open_image(path), or "
            "PIL.Image.fromarray(array)"
        )
    image = image if isinstance(image, TiledImage) else to_rgb(image)
    settings = processor.image_processor
    grid = settings.grid(image.height, image.width)
    with torch.inference_mode():
        chunks = _Timed(settings.stream_views(image, model.model.views_at_once, model.config.views))
        tokens = model.encode_stream(chunks, (grid.rows, grid.cols))
    seconds = {"preprocess": chunks.seconds, "encode": time.perf_counter() - start - chunks.seconds}
    return EncodedImage(model, processor, grid, tokens, seconds)


def _encode_clip(
    model: SlimeForConditionalGeneration, processor: SlimeProcessor, clip: Clip, start: float
) -> EncodedImage:
    grid = frame_grid(len(clip.frames), processor.image_processor.view_size)
    views = processor.image_processor.frame_views(clip.frames)
    ready = time.perf_counter()
    with torch.inference_mode():
        tokens = model.encode_frames(views, (grid.rows, grid.cols))
    seconds = {"preprocess": ready - start, "encode": time.perf_counter() - ready}
    return EncodedImage(model, processor, grid, tokens, seconds)


def ask(
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    image: OpenedInput,
    questions: str | Sequence[str],
    *,
    max_new_tokens: int = 256,
) -> list[Answer]:
    """Ask one or more questions about an image. The image is encoded once.

    Args:
        model: See `encode`.
        processor: See `encode`.
        image: See `encode`.
        questions: One question, or several.
        max_new_tokens: Maximum number of tokens of an answer.

    Returns:
        One answer per question, in the same order.

    Raises:
        InputError: A question is empty or contains the image placeholder.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    encoded = encode(model, processor, image)
    return [encoded.ask(question, max_new_tokens=max_new_tokens) for question in asked]


def up_to_end(ids: list[int], ends: int | Sequence[int] | None) -> list[int]:
    """Cut new tokens after the first end token. What follows it in a batch is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return ids[: next((index + 1 for index, token in enumerate(ids) if token in stops), len(ids))]


def check_question(processor: SlimeProcessor, question: str) -> None:
    """Check a question.

    Raises:
        InputError: The question is empty or contains the image placeholder.
    """
    if not question.strip():
        raise InputError("the question is empty, expected some text")
    if processor.image_token in question.replace("\\" + processor.image_token, ""):
        raise InputError(
            f"the question contains {processor.image_token}, which stands for an image; leave it out, or write "
            f"\\{processor.image_token} for the word itself"
        )


def _encode_question(processor: SlimeProcessor, question: str, grid: TileGrid) -> dict[str, Tensor]:
    """Return the input tensors [1, S] of a question about an image that is encoded already."""
    check_question(processor, question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"image_grids": [(grid.rows, grid.cols)], "batch_layout": "views"},
    )
    return dict(prompt)


class _Clock:
    """Seconds by step. A step begins where the previous one ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, step: str, until: float | None = None) -> None:
        now = time.perf_counter() if until is None else until
        self.seconds[step] = now - self._last
        self._last = now


class _Timed:
    """An iterator that adds up the seconds its items take."""

    def __init__(self, items: Iterator[Tensor]) -> None:
        self.seconds = 0.0
        self._items = items

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            start = time.perf_counter()
            item = next(self._items, None)
            self.seconds += time.perf_counter() - start
            if item is None:
                return
            yield item


class TimedStreamer(TextStreamer):
    """Streams text as it becomes final, and records when the first token came, which is the end of the prefill."""

    def __init__(self, tokenizer: Any, on_text: OnText | None) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.first_token: float | None = None
        self._on_text = on_text

    def put(self, value: Tensor) -> None:
        """Take the prompt, then every new token."""
        # The prompt comes first, and the base class skips it.
        if not self.next_tokens_are_prompt and self.first_token is None:
            self.first_token = time.perf_counter()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass a piece of text on."""
        if self._on_text is not None and text:
            self._on_text(text)
