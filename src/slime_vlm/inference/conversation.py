"""Conversations about images: several turns and images, each image encoded once, each token read once.

A conversation is one growing row of tokens. An image enters it with a question, and of its local tokens those are kept
that this question selects, as if its turn stood alone. What was kept stays: later turns only add to the row, so the
language model's cache of keys and values is good for all of them. To have images selected anew for another question,
let them enter again (`Conversation.look_again`), which encodes nothing.

Deviation: the published code encodes all images again in every turn and selects by the text of all turns, so that
nothing computed for one turn is of use in the next.
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
from slime_vlm.inference.answering import EncodedImage, OnText, TimedStreamer, check_question, encode
from slime_vlm.inference.heat_map import LocalSelection, draw_overlay, drawing_copy
from slime_vlm.media import OpenedInput
from slime_vlm.processing.chat_styles import Segment
from slime_vlm.processing.tokenization import encode_segments

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

# A Unicode noncharacter: it stands for the answer before a question, to find where the text of a turn begins.
_ANSWER = "\ufdd4"


@dataclass(frozen=True)
class SeenImage:
    """An image of a conversation.

    Attributes:
        name: what to call it.
        encoded: its tokens before selection.
        image: a copy to draw on, no larger than a drawing.
    """

    name: str
    encoded: EncodedImage
    image: Image.Image


@dataclass(frozen=True)
class Look:
    """An image's place in the row: what was kept of it when it entered.

    Attributes:
        image: the image.
        question: the question that it was selected for.
        kept: bool [L], the local tokens that the language model reads, in the order of merging.
        selection: the same with scores, in image order.
    """

    image: SeenImage
    question: str
    kept: Tensor
    selection: LocalSelection

    @property
    def num_global(self) -> int:
        """Global tokens that the language model reads."""
        tokens = self.image.encoded.tokens.global_tokens
        return 0 if tokens is None else tokens.shape[0]


@dataclass(frozen=True)
class Reply:
    """One answered turn.

    Attributes:
        question: the question as asked.
        text: the answer.
        prompt_ids: the whole row that was answered, every image as the placeholders it has before selection.
        answer_ids: the answer's tokens without the one that ends it.
        looks: all that had entered the row by then.
        num_cached: tokens of the row that were in the cache already.
        num_read: tokens of the row that this turn had to read, after selection.
        seconds: time by step: select, then prefill, then decode.
    """

    question: str
    text: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    looks: tuple[Look, ...]
    num_cached: int
    num_read: int
    seconds: dict[str, float]

    def draw(self) -> list[Image.Image]:
        """Draws where the model looked, a drawing for each image in the row, by its latest look."""
        latest = {id(look.image): look for look in self.looks}
        return [
            draw_overlay(
                look.image.image,
                look.selection,
                self.question,
                self.text,
                title=look.image.name,
                by=look.question,
                num_global=look.num_global,
            )
            for look in latest.values()
        ]


@dataclass
class Conversation:
    """A conversation with a model, answered greedily.

    Running the same turns from scratch gives the same answers token by token: the row (`Reply.prompt_ids`), the
    images and what was kept of them (`Reply.looks`) are all that an answer depends on, and `generate` on them without
    any cache answers alike.

    Attributes:
        model: a SliME model; `slime_vlm.load` gives it with its processor.
        processor: its processor, with a template that can write several turns.
        images: all images, whether they have entered the row or enter with the next question.
        replies: the answered turns.
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
        """Encodes an image or a video's frames, which enter the conversation with the next question."""
        encoded = encode(self.model, self.processor, image)
        return self.add_encoded(encoded, image, name)

    def add_encoded(self, encoded: EncodedImage, image: OpenedInput, name: str = "") -> SeenImage:
        """Adds an image that is encoded already; it enters the conversation with the next question.

        Args:
            encoded: the image's tokens, by the model of this conversation.
            image: what to draw on.
            name: what to call it; default its number.
        """
        seen = SeenImage(name or f"image {len(self.images) + 1}", encoded, drawing_copy(image, encoded.grid))
        self.images.append(seen)
        self._entering.append(seen)
        return seen

    def look_again(self, images: Sequence[SeenImage] | None = None) -> None:
        """Lets images (default: all) enter again with the next question, selected for it and not encoded again."""
        for image in self.images if images is None else images:
            if not any(image is waiting for waiting in self._entering):
                self._entering.append(image)

    def reset(self) -> None:
        """Forgets all turns and keeps the images, which enter with the next question."""
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
        """Answers a question in the light of what was said before.

        An error or interrupt leaves the conversation as it was before the question.

        Args:
            question: the question, without image placeholders.
            max_new_tokens: longest answer.
            on_text: called with each piece of the answer as soon as it is certain.
            should_stop: asked after every token; the answer ends where it says True, and stands as it is.

        Raises:
            InputError: the question is empty or contains the image placeholder, or the row outgrows the model.
            ConfigError: the model's template cannot write a conversation.
        """
        check_question(self.processor, question)
        start = time.perf_counter()
        with torch.inference_mode():
            entering = self._select(question)
        turn = self._turn_ids(question, entering)
        selected = time.perf_counter()

        row, looks = [*self._row, *turn], [*self._looks, *entering]
        # Without a cache (the first turn, or after an interrupt) the whole row is read, with all its images.
        new, shown = (row, looks) if self._cache is None else (row[self._num_cached :], entering)
        cached = 0 if self._cache is None else self._cache.get_seq_length()
        num_read = len(new) - sum(int((~look.kept).sum()) for look in shown)
        self._check_length(len(row), cached + num_read)
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
        # The token that ends an answer is written by the template when the next turn comes.
        answer = generated[:-1] if generated and generated[-1] in ends else generated
        # The last token of an answer is in the cache only if another one was asked for after it.
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
            num_read=num_read,
            seconds={"select": selected - start, "prefill": first - selected, "decode": done - first},
        )
        self.replies.append(reply)
        return reply

    def _check_length(self, before_selection: int, read: int) -> None:
        config = self.model.config
        length = before_selection if config.keep_position_ids else read
        limits = (config.max_sequence_length, getattr(config.text_config, "max_position_embeddings", None))
        limit = min((limit for limit in limits if limit), default=None)
        if limit is not None and length >= limit:
            raise InputError(
                f"the conversation would be {length:,} tokens long, the model reads {limit:,}; start a new one"
            )

    def _select(self, question: str) -> list[Look]:
        """Selects local tokens of the images that enter, by their turn alone: what came before has no say."""
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
                    scores = image.encoded.in_image_order(selection.scores[index, :length])
            shown = LocalSelection(
                image.encoded.grid,
                self.processor.token_layout.tile_side,
                image.encoded.in_image_order(kept),
                scores,
            )
            looks.append(Look(image, question, kept, shown))
        return looks

    def _first_turn(self, question: str, images: Sequence[SeenImage]) -> dict[str, Tensor]:
        """Input tensors [1, S] of a conversation of one question."""
        prompt = self.processor.apply_chat_template(
            [_message(question, len(images))],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"image_grids": [image.encoded.tokens.grid for image in images]},
        )
        return {name: value.to(self.model.device) for name, value in dict(prompt).items()}

    def _turn_ids(self, question: str, entering: Sequence[Look]) -> list[int]:
        """Token ids of a turn, from the end of the answer before it (if any) to where its own answer begins."""
        images = [look.image for look in entering]
        if not self._row:
            return self._first_turn(question, images)["input_ids"][0].tolist()
        # Tokens of earlier turns stay as they are: writing an answer anew could split it into other tokens.
        messages = [_message("?", 0), {"role": "assistant", "content": _ANSWER}, _message(question, len(images))]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        _, found, turn = text.partition(_ANSWER)
        if not found or question.strip() not in turn:
            raise ConfigError("the model's chat template writes no second question; ask each in a new conversation")
        image_token_id = self.processor.image_token_id
        encoded = encode_segments(
            self.processor.tokenizer,
            [Segment(turn, "template")],
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
        """Reads the tokens that follow the cached ones, and answers: the answer's tokens and the longer cache."""
        ids = torch.tensor([new], device=self.model.device)
        extra: dict[str, Any] = {}
        if shown:
            extra["vision_tokens"] = [look.image.encoded.tokens for look in shown]
            extra["kept_local_tokens"] = [look.kept for look in shown]
        if self._cache is not None:
            # Tokens that keep the positions of the dropped ones go on from the length before selection.
            first = self._num_cached if self.model.config.keep_position_ids else cached
            positions = torch.arange(first, first + len(new), device=ids.device)
            extra.update(past_key_values=self._cache, position_ids=positions[None])
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
            # A cache that grows with the conversation and stays where it is, whatever the model's generation config
            # prefers (one of fixed size, offloaded, quantised).
            use_cache=True,
            cache_implementation=None,
            **extra,
        )
        return output.sequences[0, len(new) :].tolist(), output.past_key_values


def _message(question: str, num_images: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(num_images)]
    return {"role": "user", "content": [*content, {"type": "text", "text": question}]}


class _StopWhen(StoppingCriteria):
    """Ends generation where a function says so."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._should_stop(), device=input_ids.device)
