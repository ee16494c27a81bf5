"""Answering questions about an image or video: encode it once, ask as often as you like, see where answers looked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import TextStreamer
from transformers.cache_utils import Cache, DynamicLayer

from slime_vlm.errors import InputError
from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy
from slime_vlm.media import Clip, OpenedInput, TiledImage, to_rgb
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.tiling import TileGrid, choose_grid, frame_grid, tile_to_image_order

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

OnText = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """An answer and what it was made from; per-token arrays are in image order, row by row over the whole image.

    Attributes:
        question: the question as asked.
        text: the answer.
        grid: tiles of the image.
        tile_side: local tokens along one side of a tile.
        num_global: global tokens that the language model read.
        kept: bool [L], the local tokens that the language model read.
        scores: float [L], the selector's scores; None without a selector.
        probabilities: float [L], the scores as probabilities; None without a selector.
        gates: float [N, 2], the weights of the two global adapters; None when one stands alone.
        seconds: time by step: select, prefill, decode, and for the first question of an image preprocess and encode.
    """

    question: str
    text: str
    grid: TileGrid
    tile_side: int
    num_global: int
    kept: np.ndarray
    scores: np.ndarray | None
    probabilities: np.ndarray | None
    gates: np.ndarray | None
    seconds: dict[str, float]

    @property
    def num_local(self) -> int:
        """Local tokens of the image before selection."""
        return self.kept.size

    @property
    def num_kept(self) -> int:
        """Local tokens that the language model read."""
        return int(self.kept.sum())

    @property
    def kept_indices(self) -> np.ndarray:
        """Places of the kept local tokens, int [k]."""
        return np.flatnonzero(self.kept)

    def draw(self, image: OpenedInput) -> Image.Image:
        """Draws tiles and kept tokens over what was asked about, see `overlay.draw_overlay`; of a video, its frames."""
        canvas = image if isinstance(image, Image.Image) else drawing_copy(image, self.grid)
        selection = LocalSelection(self.grid, self.tile_side, self.kept, self.scores)
        return draw_overlay(canvas, selection, self.question, self.text, num_global=self.num_global)


@dataclass(frozen=True)
class Beginning:
    """What the language model has read of an image before any question.

    Attributes:
        input_ids: [1, P] the prompt up to the last token that does not depend on the question.
        cache: keys and values of these tokens.
    """

    input_ids: Tensor
    cache: Cache

    def fits(self, input_ids: Tensor, model: SlimeForConditionalGeneration) -> bool:
        """Whether a prompt [1, S] begins so, and the model computes where and in what the cache was computed."""
        first = self.cache.layers[0].keys
        where = model.get_input_embeddings().weight
        same = input_ids.device == self.input_ids.device and (first.device, first.dtype) == (where.device, where.dtype)
        return same and torch.equal(input_ids[:, : self.input_ids.shape[1]], self.input_ids)


@dataclass
class EncodedImage:
    """An image after the vision encoder, ready for any number of questions; made by `encode`.

    What the prompts of all its questions begin with, up to the image's global tokens, is read by the language model
    once: the keys and values stay here, for as long as the model is neither moved nor changed. A model with a sliding
    window or a cache of fixed size reads it anew.

    Attributes:
        model: the model that encoded it and will answer.
        processor: the model's processor.
        grid: tiles of the image.
        tokens: its tokens before selection.
        seconds: time of the steps `preprocess` and `encode`; they are told with the first answer.
    """

    model: SlimeForConditionalGeneration
    processor: SlimeProcessor
    grid: TileGrid
    tokens: VisionTokens
    seconds: dict[str, float]
    _beginnings: deque[Beginning] = field(
        default_factory=lambda: deque(maxlen=1), init=False, repr=False, compare=False
    )

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = 256,
        kept: Tensor | None = None,
        on_text: OnText | None = None,
    ) -> Answer:
        """Answers one question, greedily.

        Args:
            question: the question, without image placeholders.
            max_new_tokens: longest answer.
            kept: bool [L] in the order of merging, the local tokens to read; by default the selector chooses.
            on_text: called with each piece of the answer as soon as it is certain.

        Raises:
            InputError: the question is empty or contains the image placeholder.
        """
        clock = _Clock()
        prompt = _encode_question(self.processor, question, self.grid)
        prompt = {name: value.to(self.model.device) for name, value in prompt.items()}
        with torch.inference_mode():
            selection = self.model.select([self.tokens], **prompt) if kept is None else None
            if selection is not None:
                kept = selection.kept[0]
            elif kept is None:
                kept = torch.ones(self.tokens.num_local_tokens, dtype=torch.bool, device=self.model.device)
            clock.tick("select")
            streamer = TimedStreamer(self.processor.tokenizer, on_text)
            ids = prompt["input_ids"]
            # Taken out, since generate writes into it: an interrupted pass fills some layers and not others, and other
            # threads may ask as well. Who finds none reads from the start.
            try:
                beginning = self._beginnings.pop()
            except IndexError:
                beginning = None
            known = beginning.cache if beginning is not None and beginning.fits(ids, self.model) else None
            output = self.model.generate(
                **prompt,
                vision_tokens=[self.tokens],
                kept_local_tokens=[kept],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                streamer=streamer,
                return_dict_in_generate=True,
                past_key_values=known,
            )
        clock.tick("prefill", until=streamer.first_token)
        clock.tick("decode")
        new_tokens = output.sequences[0, ids.shape[1] :]
        beginning = self._common_beginning(ids, output.past_key_values, len(new_tokens))
        if beginning is not None:
            self._beginnings.append(beginning)
        text = self.processor.tokenizer.decode(new_tokens, skip_special_tokens=True).strip()

        scored = selection is not None and self.model.config.scores_tokens
        shared, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return Answer(
            question=question,
            text=text,
            grid=self.grid,
            tile_side=self.processor.token_layout.tile_side,
            num_global=0 if self.tokens.global_tokens is None else self.tokens.global_tokens.shape[0],
            kept=self.in_image_order(kept),
            scores=self.in_image_order(selection.scores[0]) if selection is not None and scored else None,
            probabilities=self.in_image_order(selection.probs[0]) if selection is not None and scored else None,
            gates=None if self.tokens.gates is None else self.tokens.gates.float().cpu().numpy(),
            seconds={**shared, **clock.seconds},
        )

    def _common_beginning(self, input_ids: Tensor, cache: Cache | None, num_new: int) -> Beginning | None:
        """Cuts the cache of an answered prompt [1, S] down to what does not depend on the question."""
        # A sliding window forgets the beginning, a cache of fixed size cannot be cut, and generate takes none beside
        # the kind that its config names, which stays what it is: a fixed size may be what the model is compiled for.
        if cache is None or not all(type(layer) is DynamicLayer for layer in cache.layers):
            return None
        if self.model.generation_config.cache_implementation is not None:
            return None
        images = (input_ids[0] == self.processor.image_token_id).nonzero()
        layout = self.processor.token_layout
        length = int(images[0]) + layout.num_global_tokens + layout.num_separators
        held = cache.get_seq_length()
        # The last new token was not read. A prompt that was cut short may end before the question.
        if not 0 < length < held - (num_new - 1):
            return None
        cache.crop(length - held)
        for layer in cache.layers:
            # A view would hold the memory of all that was read.
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        return Beginning(input_ids[:, :length], cache)

    def in_image_order(self, values: Tensor) -> np.ndarray:
        """Reorder one value per local token [L] from the order of merging to image order."""
        array: np.ndarray = (values if values.dtype == torch.bool else values.float()).cpu().numpy()
        if self.model.config.local_merge == "spatial" or not array.size:
            return array
        return tile_to_image_order(array.reshape(self.grid.num_tiles, -1), self.grid.rows, self.grid.cols)


def encode(model: SlimeForConditionalGeneration, processor: SlimeProcessor, image: OpenedInput) -> EncodedImage:
    """Encodes an image once, a chunk of its views at a time: of an image of any size only the tokens are kept.

    Args:
        model: a SliME model; `slime_vlm.load` gives it with its processor.
        processor: its processor.
        image: an image of any size and mode, or what `inputs.open_input` made of a file.
    """
    start = time.perf_counter()
    if isinstance(image, Clip):
        return _encode_clip(model, processor, image, start)
    image = image if isinstance(image, TiledImage) else to_rgb(image)
    settings, config = processor.image_processor, model.config
    grid = choose_grid(image.height, image.width, settings.view_size, settings.max_tiles)
    # What a CPU computes of one view stays in its caches: eight at once take CLIP-L 1.3 times as long (docs/log.md).
    views_at_once = 1 if model.device.type == "cpu" else config.views_per_chunk
    chunks = _Timed(settings.stream_views(image, views_at_once, config.views))
    with torch.inference_mode():
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
    """Asks one or more questions about an image, which is encoded once.

    Args:
        model: see `encode`.
        processor: see `encode`.
        image: see `encode`.
        questions: one question, or several.
        max_new_tokens: longest answer.

    Returns:
        One answer for each question, in their order.

    Raises:
        InputError: a question is empty or contains the image placeholder.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    encoded = encode(model, processor, image)
    return [encoded.ask(question, max_new_tokens=max_new_tokens) for question in asked]


def check_question(processor: SlimeProcessor, question: str) -> None:
    """Raises InputError where a question is empty or contains the image placeholder."""
    if not question.strip():
        raise InputError("the question is empty, expected some text")
    if processor.image_token in question.replace("\\" + processor.image_token, ""):
        raise InputError(
            f"the question contains {processor.image_token}, which stands for an image; leave it out, or write "
            f"\\{processor.image_token} for the word itself"
        )


def _encode_question(processor: SlimeProcessor, question: str, grid: TileGrid) -> dict[str, Tensor]:
    """Writes the prompt of a question about an image whose pixels are not needed again: input tensors [1, S]."""
    check_question(processor, question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"image_grids": [(grid.rows, grid.cols)]},
    )
    return dict(prompt)


class _Clock:
    """Seconds by step; a step begins where the one before it ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, step: str, until: float | None = None) -> None:
        now = time.perf_counter() if until is None else until
        self.seconds[step] = now - self._last
        self._last = now


class _Timed:
    """Passes on what an iterator gives, and adds up the seconds that it takes."""

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
    """Passes text on as it becomes certain, and remembers when the first token came: the end of the prefill."""

    def __init__(self, tokenizer: Any, on_text: OnText | None) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.first_token: float | None = None
        self._on_text = on_text

    def put(self, value: Tensor) -> None:
        """Takes the prompt, then every new token."""
        # The prompt comes first and is skipped by the base class.
        if not self.next_tokens_are_prompt and self.first_token is None:
            self.first_token = time.perf_counter()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Passes a piece of text on."""
        if self._on_text is not None and text:
            self._on_text(text)
