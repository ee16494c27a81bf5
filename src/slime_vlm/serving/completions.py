"""Answers in OpenAI's shape."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.serving.jobs import Done, Started, Usage
from slime_vlm.serving.protocol import ChatRequest


def new_id() -> str:
    """Return the id of an answer."""
    return f"chatcmpl-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Answered:
    """What all parts of an answer have in common."""

    id: str
    model: str
    request: ChatRequest
    started: Started
    created: int = field(default_factory=lambda: int(time.time()))


def completion(answered: Answered, text: str, done: Done) -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    found = {
        **_head(answered, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": done.reason, "logprobs": None}],
        "usage": usage_fields(done.usage),
    }
    if answered.request.slime.explain:
        found["slime"] = {"images": answered.started.images, **_timing(done)}
    return found


def chunk(
    answered: Answered, delta: dict[str, Any] | None, *, started: bool = False, done: Done | None = None
) -> dict[str, Any]:
    """Return a part of a streamed answer.

    Args:
        answered: The answer.
        delta: What it adds. None makes the part that holds the usage alone.
        started: Whether it is the first part, which explains the images.
        done: The end of the answer, for the last parts.
    """
    found = _head(answered, "chat.completion.chunk")
    if delta is None:
        assert done is not None
        return {**found, "choices": [], "usage": usage_fields(done.usage)}
    reason = None if done is None else done.reason
    found["choices"] = [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]
    if answered.request.slime.explain:
        if started:
            found["slime"] = {"images": answered.started.images}
        if done is not None:
            found["slime"] = _timing(done)
    return found


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Return numbers of tokens. Local tokens count as far as the question has kept them."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.new,
        "total_tokens": usage.prompt + usage.new,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "text_tokens": usage.text,
            "global_tokens": usage.global_,
            "local_tokens": usage.local,
            "local_tokens_before_selection": usage.local_before,
        },
    }


def _head(answered: Answered, kind: str) -> dict[str, Any]:
    return {"id": answered.id, "object": kind, "created": answered.created, "model": answered.model}


def _timing(done: Done) -> dict[str, Any]:
    return {
        "seconds": {step: round(value, 4) for step, value in done.seconds.items()},
        "usage": usage_fields(done.usage),
    }
