"""Conversations about images: several turns and images. Each image is encoded once, each token processed once.

A conversation is one growing row of tokens. An image enters it with a question, and only the local tokens that this
question selects are kept, as if the turn stood alone. The kept tokens stay: later turns only append to the row, so the
key-value cache of the language model stays valid. `Conversation.look_again` lets images enter once more, selected for
another question. It encodes nothing.

Deviation: the published code encodes all images again in every turn and selects by the text of all turns, so that
nothing computed for one turn can be used in the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.inference.answering import EncodedImage, encode
from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy
from slime_vlm.inference.questions import check_question
from slime_vlm.inference.timing import OnText, TimedStreamer
from slime_vlm.media import OpenedInput
from slime_vlm.model.cache_name import CACHE
from slime_vlm.processing.chat_markers import mark_messages, parse_marks
from slime_vlm.processing.tokenization import encode_segments

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

# A Unicode noncharacter that `chat_markers` does not use. It stands for the answer before a question, to find where the
# text of a turn begins.
_ANSWER = "\ufddf"


@dataclass(frozen=True)
class SeenImage:
    """An image of a conversation.

    Attributes:
        name: Name of the image.
        encoded: Its tokens before selection.
        image: A copy to draw on, no larger than a drawing.
    """

    name: str
    encoded: EncodedImage
    image: Image.Image


@dataclass(frozen=True)
class Look:
    """One entry of an image into the row, with the local tokens that were kept.

    Attributes:
        image: The image.
        question: The question that its tokens were selected for.
        kept: bool [L], the kept local tokens, in the order of merging.
        selection: The same with scores, in image order.
    """

    image: SeenImage
    question: str
    kept: Tensor
    selection: LocalSelection


@dataclass(frozen=True)
class Reply:
    """One answered turn.

    Attributes:
        question: The question.
        text: The answer.
        prompt_ids: The whole row that was answered, with every image as its placeholders before selection.
        answer_ids: Tokens of the answer without the end token.
        looks: The images that had entered the row by then.
        num_cached: Number of tokens of the row that were in the cache already.
        num_processed: Number of tokens of the row that this turn processed, after selection.
        seconds: Time by step: select, prefill and decode.
    """

    question: str
    text: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    looks: tuple[Look, ...]
    num_cached: int
    num_processed: int
    seconds: dict[str, float]

    def draw(self) -> list[Image.Image]:
        """Draw the kept tokens of every image in the row, as of its latest entry: one drawing per image."""
        latest = {id(look.image): look for look in self.looks}
        return [
            draw_overlay(
                look.image.image,
                look.selection,
                self.question,
                self.text,
                title=look.image.name,
                by=look.question,
                num_global=look.image.encoded.num_global,
            )
            for look in latest.values()
        ]


@dataclass
class Conversation:
    """A conversation with a model, answered with greedy decoding.

    An answer depends only on the row (`Reply.prompt_ids`), the images and their kept tokens (`Reply.looks`). `generate`
    without a cache gives the same answer for them, token by token.

    Attributes:
        model: A SliME model. `slime_vlm.load` returns it with its processor.
        processor: Its processor, with a chat template that can write several turns.
        images: All images, those in the row and those that enter with the next question.
        replies: The answered turns.
    """

    model: SlimeForConditionalGeneration = field(repr=False)
    processor: SlimeProcessor = field(repr=False)
    images: list[SeenImage] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    _entering: list[SeenImage] = field(default_factory=list, repr=False)
    _row: list[int] = field(default_factory=list, repr=False)
    _looks: list[Look] = field(default_factory=list, repr=False)
    _cache: Cache | None = field(default=None, repr=False)
    _num_cached: int = field(default=0, repr=False)  # tokens of `_row`, counted before selection

    def add_image(self, image: OpenedInput, name: str = "") -> SeenImage:
        """Encode an image or the frames of a video. They enter the conversation with the next question."""
        encoded = encode(self.model, self.processor, image)
        return self.add_encoded(encoded, image, name)

    def add_encoded(self, encoded: EncodedImage, image: OpenedInput, name: str = "") -> SeenImage:
        """Add an image that is encoded already. It enters the conversation with the next question.

        Args:
            encoded: The image's tokens, encoded by the model of this conversation.
            image: The image to draw on.
            name: Name of the image. Empty takes its number.
        """
        seen = SeenImage(name or f"image {len(self.images) + 1}", encoded, drawing_copy(image, encoded.grid))
        self.images.append(seen)
        self._entering.append(seen)
        return seen

    def look_again(self, images: Sequence[SeenImage] | None = None) -> None:
        """Let images enter once more with the next question, selected for it. Nothing is encoded again.

        Args:
            images: The images. None takes all.
        """
        for image in self.images if images is None else images:
            if not any(image is waiting for waiting in self._entering):
                self._entering.append(image)

    def reset(self) -> None:
        """Forget all turns. The images stay and enter with the next question."""
        self.replies, self._row, self._looks = [], [], []
        self._cache, self._num_cached = None, 0
        self._entering = list(self.images)

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = 256,
        on_text: OnText | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Reply:
        """Answer a question, given the turns before it.

        An error or interrupt leaves the conversation as it was before the question.

        Args:
            question: The question, without image placeholders.
            max_new_tokens: Maximum number of tokens of the answer.
            on_text: Called with each piece of the answer as soon as it is final.
            should_stop: Called after every token. When it returns True the answer ends there.

        Raises:
            InputError: The question is empty or contains the image placeholder, or the row becomes too long.
            ConfigError: The model's template cannot write a conversation.
        """
        check_question(self.processor, question)
        start = time.perf_counter()
        with torch.inference_mode():
            entering = self._select(question)
        turn = self._turn_ids(question, entering)
        selected = time.perf_counter()

        row, looks = [*self._row, *turn], [*self._looks, *entering]
        # Without a cache (the first turn, or after an interrupt) the whole row is processed, with all its images.
        new, shown = (row, looks) if self._cache is None else (row[self._num_cached :], entering)
        cached = 0 if self._cache is None else self._cache.get_seq_length()
        num_processed = len(new) - sum(int((~look.kept).sum()) for look in shown)
        self._check_length(len(row), cached + num_processed)
        streamer = TimedStreamer(self.processor.tokenizer, on_text)
        try:
            generated, cache = self._generate(new, shown, cached, max_new_tokens, streamer, should_stop)
        except BaseException:
            # An interrupted pass has filled some layers of the cache and not others.
            self._cache = None
            raise
        done = time.perf_counter()
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        # The chat template writes the end token of the answer with the next turn.
        answer = generated[:-1] if generated and generated[-1] in ends else generated
        # The last generated token is never processed, so it is not in the cache.
        self._num_cached = len(row) + len(generated) - 1
        self._row, self._looks, self._cache, self._entering = [*row, *answer], looks, cache, []
        first = streamer.first_token or done
        reply = Reply(
            question=question,
            text=self.processor.tokenizer.decode(answer, skip_special_tokens=True).strip(),
            prompt_ids=tuple(row),
            answer_ids=tuple(answer),
            looks=tuple(looks),
            num_cached=cached,
            num_processed=num_processed,
            seconds={"select": selected - start, "prefill": first - selected, "decode": done - first},
        )
        self.replies.append(reply)
        return reply

    def _check_length(self, num_before_selection: int, num_after: int) -> None:
        config = self.model.config
        length = num_before_selection if config.keep_position_ids else num_after
        limits = (config.max_sequence_length, getattr(config.text_config, "max_position_embeddings", None))
        limit = min((limit for limit in limits if limit), default=None)
        if limit is not None and length >= limit:
            raise InputError(
                f"the conversation would be {length:,} tokens long, but the model takes at most {limit:,}; start a new "
                "one"
            )

    def _select(self, question: str) -> list[Look]:
        """Select local tokens of the images that enter, by this turn alone, without the turns before it."""
        if not self._entering:
            return []
        tokens = [image.encoded.tokens for image in self._entering]
        selection = self.model.select(tokens, **self._first_turn(question, self._entering))
        looks = []
        for index, image in enumerate(self._entering):
            length = tokens[index].num_local_tokens
            kept = torch.ones(length, dtype=torch.bool, device=self.model.device)
            scores = None
            if selection is not None:
                kept = selection.kept[index, :length]
                if self.model.config.scores_tokens:
                    scores = selection.scores[index, :length]
            looks.append(Look(image, question, kept, image.encoded.local_selection(kept, scores)))
        return looks

    def _first_turn(self, question: str, images: Sequence[SeenImage]) -> dict[str, Tensor]:
        """Return the input tensors [1, S] of a conversation of one question."""
        prompt = self.processor.apply_chat_template(
            [_message(question, len(images))],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={
                "image_grids": [image.encoded.tokens.grid for image in images],
                "batch_layout": "views",
            },
        )
        return {name: value.to(self.model.device) for name, value in dict(prompt).items()}

    def _turn_ids(self, question: str, entering: Sequence[Look]) -> list[int]:
        """Return the token ids of a turn, from the end of the answer before it to the beginning of its own."""
        images = [look.image for look in entering]
        if not self._row:
            return self._first_turn(question, images)["input_ids"][0].tolist()
        # Tokens of earlier turns stay as they are. Tokenizing an answer again could split it differently.
        messages = [_message("?", 0), {"role": "assistant", "content": _ANSWER}, _message(question, len(images))]
        # Marked, so that special tokens in the question are ordinary text.
        marked = mark_messages(messages, answers=False)
        text = self.processor.apply_chat_template(marked, add_generation_prompt=True)
        _, found, turn = text.partition(_ANSWER)
        segments = parse_marks(turn, self.processor.tokenizer)
        if not found or segments is None or question.strip() not in turn:
            raise ConfigError(
                "the model's chat template cannot write a second question; ask each question in a new conversation"
            )
        image_token_id = self.processor.image_token_id
        encoded = encode_segments(
            self.processor.tokenizer,
            segments,
            image_token_id,
            image_token=self.processor.image_token,
            add_special_tokens=False,
        )
        layout = self.processor.token_layout
        counts = [layout.num_image_tokens(*image.encoded.tokens.grid) for image in images]
        return encoded.expand_images(image_token_id, counts).input_ids

    def _generate(
        self,
        new: list[int],
        shown: Sequence[Look],
        cached: int,
        max_new_tokens: int,
        streamer: TimedStreamer,
        should_stop: Callable[[], bool] | None,
    ) -> tuple[list[int], Cache]:
        """Process the tokens that follow the cached ones, and generate an answer.

        Returns:
            The answer's tokens, and the cache.
        """
        ids = torch.tensor([new], device=self.model.device)
        extra: dict[str, Any] = {}
        if shown:
            extra["vision_tokens"] = [look.image.encoded.tokens for look in shown]
            extra["kept_local_tokens"] = [look.kept for look in shown]
        if self._cache is not None:
            # With keep_position_ids, positions continue from the length before selection.
            first = self._num_cached if self.model.config.keep_position_ids else cached
            positions = torch.arange(first, first + len(new), device=ids.device)
            extra.update({CACHE: self._cache, "position_ids": positions[None]})
        if should_stop is not None:
            extra["stopping_criteria"] = StoppingCriteriaList([_StopWhen(should_stop)])
        output = self.model.generate(
            input_ids=ids,
            attention_mask=ids.new_ones(1, cached + len(new)),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            streamer=streamer,
            return_dict_in_generate=True,
            # The cache has to grow with the conversation and stay on its device, whatever kind the generation config
            # names (fixed size, offloaded, quantised).
            use_cache=True,
            cache_implementation=None,
            **extra,
        )
        return output.sequences[0, len(new) :].tolist(), getattr(output, CACHE)


def _message(question: str, num_images: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(num_images)]
    return {"role": "user", "content": [*content, {"type": "text", "text": question}]}


class _StopWhen(StoppingCriteria):
    """Ends generation when a function returns True."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._should_stop(), device=input_ids.device)
