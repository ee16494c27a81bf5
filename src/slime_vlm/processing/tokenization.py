"""From the segments of a conversation to token ids, question masks and labels (paper section 3.4, 4.1).

As published, a prompt is split at its image placeholders, and every part is tokenized by itself. Sentencepiece
therefore adds its leading space to each part. The masks follow from character offsets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.processing.chat_styles import (
    END_OF_CONVERSATION,
    IMAGE_PLACEHOLDER,
    ConversationStyle,
    Segment,
    Turn,
    build_segments,
)

LABEL_RULES = ("answers", "published")


@dataclass(frozen=True)
class EncodedText:
    """Tokens of one row.

    Attributes:
        input_ids: Token ids, with one `image_token_id` per image until `expand_images`.
        question_mask: 1 on tokens of a question, else 0.
        labels: The token's id if the model has to write it, else -100.
        offsets: (first, last + 1) character of every token in the text.
    """

    input_ids: list[int]
    question_mask: list[int]
    labels: list[int]
    offsets: list[tuple[int, int]]

    def cut(self, length: int) -> EncodedText:
        """Keep the first `length` tokens."""
        return EncodedText(
            self.input_ids[:length], self.question_mask[:length], self.labels[:length], self.offsets[:length]
        )

    def expand_images(self, image_token_id: int, counts: Sequence[int]) -> EncodedText:
        """Repeat the placeholder of image i `counts[i]` times. Offsets become those of the expanded text."""
        ids: list[int] = []
        question: list[int] = []
        labels: list[int] = []
        offsets: list[tuple[int, int]] = []
        remaining = iter(counts)
        shift = 0
        for token, asked, label, (start, end) in zip(
            self.input_ids, self.question_mask, self.labels, self.offsets, strict=True
        ):
            if token != image_token_id:
                ids.append(token)
                question.append(asked)
                labels.append(label)
                offsets.append((start + shift, end + shift))
                continue
            count, width = next(remaining), end - start
            ids += [token] * count
            question += [0] * count
            labels += [IGNORED_LABEL] * count
            offsets += [(start + shift + index * width, start + shift + (index + 1) * width) for index in range(count)]
            shift += (count - 1) * width
        return EncodedText(ids, question, labels, offsets)

    def image_replacements(self, image_token_id: int, image_token: str, counts: Sequence[int]) -> list[dict[str, Any]]:
        """List the spans of placeholders before and after `expand_images`, in transformers' form."""
        found, shift = [], 0
        spans = [span for token, span in zip(self.input_ids, self.offsets, strict=True) if token == image_token_id]
        for (start, end), count in zip(spans, counts, strict=True):
            replacement = image_token * count
            found.append(
                {
                    "type": "image",
                    "span": (start, end),
                    "new_span": (start + shift, start + shift + len(replacement)),
                    "text": image_token,
                    "replacement": replacement,
                }
            )
            shift += len(replacement) - (end - start)
        return found


def encode_segments(
    tokenizer: Any,
    segments: Sequence[Segment],
    image_token_id: int,
    *,
    image_token: str = IMAGE_PLACEHOLDER,
    add_special_tokens: bool = True,
) -> EncodedText:
    """Tokenize segments. A token belongs to the question that it touches and to the answer in which it starts.

    Args:
        tokenizer: A tokenizer that knows character offsets.
        segments: The row.
        image_token_id: Id that stands for an image.
        image_token: Text that stands for an image.
        add_special_tokens: Whether to start with the beginning-of-text token if the tokenizer adds it. If the text has
            it already, it is not added again.

    Raises:
        ConfigError: The tokenizer has no character offsets.
    """
    pieces: list[str] = []
    is_question, is_answer, is_literal = bytearray(), bytearray(), bytearray()
    verbatim: set[int] = set()
    position = 0
    for segment in segments:
        # An escaped placeholder is a word. The backslash is dropped, and the rest does not stand for an image.
        *before, _ = parts = segment.text.split("\\" + image_token)
        ends = accumulate(len(part) + len(image_token) for part in before)
        escaped = [end - len(image_token) for end in ends]
        piece = image_token.join(parts)
        asked = bytearray(len(piece))
        if segment.kind == "question":
            first = 0
            for words in piece.split(image_token):
                # Blanks around a question carry no meaning, and sentencepiece may join them to the template.
                core, lead = words.strip(), len(words) - len(words.lstrip())
                asked[first + lead : first + lead + len(core)] = b"\x01" * len(core)
                first += len(words) + len(image_token)
        is_question += asked
        is_answer += bytes([segment.kind == "answer"]) * len(piece)
        is_literal += bytes([segment.literal]) * len(piece)
        for first in escaped:
            is_literal[position + first : position + first + len(image_token)] = b"\x01" * len(image_token)
            verbatim.add(position + first)
        pieces.append(piece)
        position += len(piece)
    text = "".join(pieces)

    special = set(tokenizer.all_special_ids) | {image_token_id}
    ids: list[int] = []
    question: list[int] = []
    labels: list[int] = []
    offsets: list[tuple[int, int]] = []

    def put(token: int, start: int, end: int) -> None:
        ids.append(token)
        question.append(int(token not in special and any(is_question[start:end])))
        # The model never has to write a token that starts before its answer.
        labels.append(token if start < len(text) and is_answer[start] else IGNORED_LABEL)
        offsets.append((start, end))

    start = 0
    has_bos = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    if has_bos or (add_special_tokens and adds_bos(tokenizer)):
        # Added here, not by the tokenizer: after a beginning-of-text token in the text, sentencepiece would not add its
        # leading space.
        start = len(tokenizer.bos_token) if has_bos else 0
        put(tokenizer.bos_token_id, 0, start)
        labels[0] = IGNORED_LABEL
    found = (match.start() for match in re.finditer(re.escape(image_token), text[start:]))
    images = [first + start for first in found if first + start not in verbatim]
    for end in [*images, len(text)]:
        if end > start:
            for token, (first, last) in _tokenize_part(tokenizer, text[start:end], is_literal[start:end]):
                put(token, start + first, start + last)
        if end < len(text):
            put(image_token_id, end, end + len(image_token))
            labels[-1] = IGNORED_LABEL
        start = end + len(image_token)
    return EncodedText(ids, question, labels, offsets)


def adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer starts every text with its beginning-of-text token."""
    return tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]


def _tokenize_part(tokenizer: Any, text: str, is_literal: bytes | bytearray) -> list[tuple[int, tuple[int, int]]]:
    """Tokenize text between images. Special tokens in literal text are split into ordinary ones."""
    tokens = _tokenize(tokenizer, text)
    control = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    if not any(token in control and any(is_literal[first:last]) for token, (first, last) in tokens):
        return tokens
    # Only such a text is split at its borders. In other texts a split would change the tokens of the words beside it.
    tokens = []
    start = 0
    for literal, run in groupby(is_literal):
        end = start + len(list(run))
        for token, (first, last) in _tokenize(tokenizer, text[start:end], split_special_tokens=bool(literal)):
            tokens.append((token, (start + first, start + last)))
        start = end
    return tokens


def _tokenize(tokenizer: Any, text: str, split_special_tokens: bool = False) -> list[tuple[int, tuple[int, int]]]:
    if not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} has no character offsets, expected a fast tokenizer; "
            "load it from a tokenizer.json"
        )
    # verbose=False: the tokens of images are added later, so a warning would be about the wrong length.
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=split_special_tokens,
        return_offsets_mapping=True,
        verbose=False,
    )
    return list(zip(encoded["input_ids"], map(tuple, encoded["offset_mapping"]), strict=True))


def encode_conversation(
    tokenizer: Any,
    turns: Sequence[Turn],
    style: ConversationStyle,
    image_token_id: int,
    *,
    label_rule: str = "answers",
    max_length: int | None = None,
) -> EncodedText:
    """Tokenize a training conversation, with one placeholder per image.

    Args:
        tokenizer: Tokenizer with offsets.
        turns: Messages.
        style: Conversation style.
        image_token_id: Id that stands for an image.
        label_rule: `answers` always supervises every answer with its end of turn, and nothing else. `published` is the
            rule of the published code: it counts the tokens of every round, and a sample with a wrong count is not
            supervised at all. Deviation: the default is `answers`.
        max_length: Cut conversations without an image to this length, as published. The model cuts those with images,
            after it has inserted them.

    Raises:
        ConfigError: `label_rule` is unknown.
    """
    if label_rule not in LABEL_RULES:
        raise ConfigError(f"label_rule is '{label_rule}', expected one of {', '.join(LABEL_RULES)}")
    segments = [
        segment
        for segment in build_segments(turns, style, published=label_rule == "published")
        # The published training removes this tail before tokenizing.
        if segment.text != END_OF_CONVERSATION
    ]
    encoded = encode_segments(tokenizer, segments, image_token_id)
    if max_length is not None and image_token_id not in encoded.input_ids:
        encoded = encoded.cut(max_length)
    if label_rule == "published":
        labels = published_labels(tokenizer, turns, style, encoded.input_ids, image_token_id, max_length)
        encoded = EncodedText(encoded.input_ids, encoded.question_mask, labels, encoded.offsets)
    return encoded


def published_labels(
    tokenizer: Any,
    turns: Sequence[Turn],
    style: ConversationStyle,
    input_ids: Sequence[int],
    image_token_id: int,
    max_length: int | None = None,
) -> list[int]:
    """Label a conversation exactly as the published training code does, defects included.

    The prompt is split into rounds as text. The tokens of each round and of its instruction are counted separately. If
    the counts do not add up to the length of the sample, none of it is supervised.

    Args:
        tokenizer: Tokenizer of the sample.
        turns: Messages of the sample.
        style: `llama3`, `v1` or `plain`.
        input_ids: Tokens of the sample, images as one placeholder each.
        image_token_id: Id that stands for an image.
        max_length: Samples of at least this length are not checked.

    Raises:
        InputError: The style has no published rule.
    """

    def count(text: str) -> int:
        return len(encode_segments(tokenizer, [Segment(text, "template")], image_token_id).input_ids)

    labels = [IGNORED_LABEL if token == image_token_id else token for token in input_ids]
    if style.name == "plain":
        ignored = count(IMAGE_PLACEHOLDER)
        return [IGNORED_LABEL] * ignored + labels[ignored:]
    prompt = "".join(segment.text for segment in build_segments(turns, style, published=True))
    if style.name == "llama3":
        rounds, mark, length, surplus = prompt.split(END_OF_CONVERSATION), style.assistant_open, 0, 0
        corrected = True
    elif style.name == "v1":
        # The mark ends with a separate space, and the count of a round includes a bos: two tokens too many.
        rounds, mark, length, surplus = prompt.split(style.assistant_close), " ASSISTANT: ", 1, 2
        corrected = not getattr(tokenizer, "legacy", True)
    else:
        raise InputError(f"style '{style.name}' has no published label rule, expected llama3, v1 or plain")
    labels[:length] = [IGNORED_LABEL] * length
    for index, text in enumerate(rounds):
        pieces = text.split(mark)
        if len(pieces) != 2:
            break
        # Every round is tokenized as if it started the text. From the second round on, that adds one token.
        extra = int(index > 0 and corrected)
        instruction = count(pieces[0] + mark) - surplus - extra
        labels[length : length + instruction] = [IGNORED_LABEL] * len(labels[length : length + instruction])
        length += count(text) - extra
    labels[length:] = [IGNORED_LABEL] * len(labels[length:])
    present = sum(token != tokenizer.pad_token_id for token in input_ids)
    if (max_length is None or length < max_length) and length != present:
        return [IGNORED_LABEL] * len(labels)
    return labels
