"""Answer questions about an image or video: encode it once, ask any number of questions, see which tokens were kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.cache_utils import Cache, DynamicCache

from slime_vlm.errors import InputError
from slime_vlm.inference.answer import Answer
from slime_vlm.inference.cached_prefix import CachedPrefix
from slime_vlm.inference.confidence import ProbabilityRecorder, calibrated
from slime_vlm.inference.heat_map import LocalSelection
from slime_vlm.inference.questions import check_question, encode_question
from slime_vlm.inference.reading import reading_certainty
from slime_vlm.inference.timing import OnText, StepClock, TimedIterator, TimedStreamer
from slime_vlm.media import Clip, OpenedInput, TiledImage, to_rgb
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.cached_rows import joined_cache, record_of
from slime_vlm.model.growing_cache import GrowingLayer, growing_cache
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import Selection
from slime_vlm.model.tiling import TileGrid, frame_grid, tile_to_image_order

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

__all__ = [
    "Answer",
    "CachedPrefix",
    "EncodedImage",
    "OnText",
    "TimedStreamer",
    "ask",
    "check_question",
    "encode",
    "up_to_end",
]


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
        clock = StepClock()
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
        clock = StepClock()
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
        prompt = encode_question(self.processor, question, self.grid)
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
        reading = self._reading(new_tokens)
        return Answer(
            question=question,
            text=self.processor.tokenizer.decode(new_tokens, skip_special_tokens=True).strip(),
            selection=self.local_selection(kept, selection.scores[0] if selection is not None and scored else None),
            num_global=self.num_global,
            probabilities=self.in_image_order(selection.probs[0]) if selection is not None and scored else None,
            gates=None if self.tokens.gates is None else self.tokens.gates.float().cpu().numpy(),
            seconds=seconds,
            confidence=calibrated(mean, self.model.config.answer_calibration, reading),
            reading=reading,
        )

    def _reading(self, new_tokens: Tensor | list[int]) -> float | None:
        """Return how certain the characters are that an answer repeats, None without characters."""
        ids, certainties, text = self.tokens.characters, self.tokens.certainties, self.model.config.characters
        if ids is None or certainties is None or text is None:
            return None
        rows = self.grid.rows * self.processor.token_layout.tile_side
        answer = torch.as_tensor(new_tokens).tolist()
        ids, certainties = (part.unflatten(0, (rows, -1)) for part in (ids, certainties))
        said = [token for token in answer if 0 < token <= len(text)]
        return reading_certainty(ids, certainties, said, text.index(" ") + 1)

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
        chunks = TimedIterator(settings.stream_views(image, model.model.views_at_once, model.config.views))
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
