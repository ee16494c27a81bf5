"""Marks that carry questions and answers through any chat template.

A chat template turns messages into one string, which no longer tells who said what. Texts are therefore wrapped in
marks before they are rendered, and the marks are removed afterwards. This works for any template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slime_vlm.processing.chat_styles import ESCAPED_PLACEHOLDER, Kind, Segment

# Unicode noncharacters. They are reserved for use inside a program, so ordinary text does not contain them.
_OPEN_QUESTION, _CLOSE_QUESTION, _OPEN_ANSWER, _CLOSE_ANSWER = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
# Texts of earlier turns and of the system. They are neither question nor label, but special tokens in them are
# ordinary text.
_OPEN_SAID, _CLOSE_SAID = "\ufdd6", "\ufdd7"
_KINDS: dict[str, tuple[str, Kind]] = {
    _OPEN_QUESTION: (_CLOSE_QUESTION, "question"),
    _OPEN_ANSWER: (_CLOSE_ANSWER, "answer"),
    _OPEN_SAID: (_CLOSE_SAID, "template"),
}
_MARKS = re.compile("[\ufdd0-\ufdd3\ufdd6\ufdd7]")
_MARKED = re.compile("|".join(f"{opening}[^{closing}]*" for opening, (closing, _) in _KINDS.items()))
_ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "</s>")


def mark_messages(conversation: Any, *, answers: bool) -> Any:
    """Wrap the texts of users, assistants and the system in marks, and return a copy.

    The last user text is the question. With `answers`, every user text is a question, and assistant texts are answers.
    Texts of other turns are marked as well, since special tokens in them are ordinary text.

    Marks go inside the blanks around a text, so that a template that strips blanks still strips them.

    Args:
        conversation: Messages, or a list of conversations.
        answers: Whether to mark every turn as question or answer.
    """
    if not isinstance(conversation, (list, tuple)):
        return conversation
    if not all(isinstance(message, Mapping) for message in conversation):
        return [mark_messages(part, answers=answers) for part in conversation]
    last = max((index for index, message in enumerate(conversation) if message.get("role") == "user"), default=-1)
    return [_mark_message(message, answers, index == last) for index, message in enumerate(conversation)]


def _mark_message(message: Mapping[str, Any], answers: bool, is_last: bool) -> dict[str, Any]:
    opening = {
        "user": _OPEN_QUESTION if answers or is_last else _OPEN_SAID,
        "assistant": _OPEN_ANSWER if answers else _OPEN_SAID,
        "system": _OPEN_SAID,
    }.get(str(message.get("role")))
    content = message.get("content")
    if isinstance(content, str):
        content = _wrap(content, opening)
    elif isinstance(content, (list, tuple)):
        content = [
            {**block, "text": _wrap(block["text"], opening)}
            if isinstance(block, Mapping) and block.get("type") == "text" and isinstance(block.get("text"), str)
            else block
            for block in content
        ]
    return {**message, "content": content}


def _wrap(text: str, opening: str | None) -> str:
    text = _MARKS.sub("", text)
    core = text.strip()
    if opening is None or not core:
        return text
    start = text.index(core)
    return text[:start] + opening + core + _KINDS[opening][0] + text[start + len(core) :]


def parse_marks(text: str, tokenizer: Any, closing: str | None = None) -> list[Segment] | None:
    """Remove the marks from a rendered text and return its segments, or None if it has no marks.

    An answer is extended by the blanks around it and by the end of turn after it, since the model writes these as well.

    Args:
        text: Rendered text.
        tokenizer: Its end-of-text token ends an answer, and so do the end tokens of well-known templates.
        closing: Text that ends an answer in the style of the conversation.
    """
    if not _MARKS.search(text):
        return None
    segments: list[Segment] = []
    position = 0
    for match in _MARKED.finditer(text):
        kind = _KINDS[match.group()[0]][1]
        segments += [
            Segment(text[position : match.start()], "template"),
            Segment(match.group()[1:], kind, literal=True),
        ]
        position = match.end() + 1
    segments.append(Segment(text[position:], "template"))
    segments = [replace(segment, text=_MARKS.sub("", segment.text)) for segment in segments]
    ends = (closing, tokenizer.eos_token, *_ENDS_OF_TURN)
    return [segment for segment in _widen_answers(segments, ends) if segment.text]


def without_marks(text: str) -> str:
    """Remove the marks from a text."""
    return _MARKS.sub("", text)


def position_without_marks(text: str, position: int) -> int:
    """Return where a character of a rendered text is once marks and the backslashes of escaped placeholders are gone.

    Args:
        text: Rendered text.
        position: Index of the character in it.
    """
    before = text[:position]
    escapes = sum(match.group().count(ESCAPED_PLACEHOLDER) for match in _MARKED.finditer(before))
    return len(_MARKS.sub("", before)) - escapes


def _widen_answers(segments: Sequence[Segment], ends: Sequence[str | None]) -> list[Segment]:
    pattern = re.compile(rf"\s*(?:{'|'.join(re.escape(end) for end in ends if end)})")
    widened = list(segments)
    tails: dict[int, Segment] = {}
    for index in range(1, len(widened) - 1):
        if widened[index].kind != "answer":
            continue
        before, answer, after = widened[index - 1].text, widened[index].text, widened[index + 1].text
        # A single blank only: after a prompt such as `ASSISTANT:` the model writes it. Line ends are of the template.
        lead = " " if before.endswith(" ") and not before.endswith("\n ") else ""
        found = pattern.match(after)
        tail = found.group() if found else ""
        widened[index - 1] = replace(widened[index - 1], text=before[: len(before) - len(lead)])
        widened[index] = Segment(lead + answer, "answer", literal=True)
        widened[index + 1] = replace(widened[index + 1], text=after[len(tail) :])
        # The end of turn is a special token, so it is not part of the literal text.
        tails[index] = Segment(tail, "answer")
    return [
        piece for index, segment in enumerate(widened) for piece in (segment, tails.get(index)) if piece is not None
    ]
