"""Render chat templates that come with a checkpoint in a worker process, with limits on time, memory and output.

Jinja's sandbox keeps a template from the files and objects of this process. It does not limit how long a template
computes or how much memory it takes. Our own templates are known and are rendered in this process, which takes less
time.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

from transformers.utils.chat_template_utils import get_json_schema

from slime_vlm.errors import CheckpointError, InputError
from slime_vlm.processing.chat_styles import STYLES, ConversationStyle, write_chat_template
from slime_vlm.workers.process import WorkerPool

SECONDS = 5
"""Computing time for the conversations of one call. A long one takes some milliseconds."""

MEMORY = 500_000_000
"""Bytes beside those that the worker has from the start."""

MOST_CHARACTERS = 2_000_000
"""Characters of the rendered text, beside four times those of the request: a text may be repeated."""

# Waiting is no computing, and a new worker imports transformers first: it is ended after this many times that.
_WAITING = 12
_MAX_WORKERS = 4

_ADVICE = "choose a conversation style with processor.use_style, or fetch the checkpoint from a source you trust"

_pool = WorkerPool("slime_vlm.processing.rendering_worker", _MAX_WORKERS)


@cache
def _own_templates() -> frozenset[str]:
    return frozenset(map(write_chat_template, STYLES.values()))


def is_own(template: str, style: ConversationStyle | None) -> bool:
    """Tell whether a template is one that this package writes, for a known style or the given one."""
    return template in _own_templates() or (style is not None and template == write_chat_template(style))


def render(
    conversations: list[list[dict[str, Any]]], tools: Sequence[Any] | None, **arguments: Any
) -> tuple[list[str], list[list[list[int]]]]:
    """Render conversations in a worker, with the arguments and result of transformers' `render_jinja_template`.

    The template sees a text that names the type in place of every value that JSON does not have, such as an image.

    Raises:
        InputError: The template does not take the messages.
        CheckpointError: The template takes too much time or memory, or writes too much.
    """
    schemas = [get_json_schema(tool) if inspect.isroutine(tool) else tool for tool in tools] if tools else tools
    message = {
        "arguments": {"conversations": conversations, "tools": schemas, **arguments},
        "seconds": SECONDS,
        "memory": MEMORY,
        "most_characters": MOST_CHARACTERS,
    }
    with _pool.worker() as worker:
        try:
            with worker.task(_WAITING * SECONDS):
                worker.send(message, default=lambda value: f"<{type(value).__name__}>")
                answer = worker.receive()
        except EOFError:
            raise CheckpointError(
                f"the chat template takes more than {SECONDS} seconds or crashes, expected milliseconds; {_ADVICE}"
            ) from None
        worker.is_ready = not answer.get("retires", False)
    if answer.get("limit") == "memory":
        raise CheckpointError(f"the chat template takes more than {MEMORY / 1e6:,.0f} MB of memory; {_ADVICE}")
    if "limit" in answer:
        raise CheckpointError(
            f"the chat template writes more than {MOST_CHARACTERS:,} characters beside the messages; {_ADVICE}"
        )
    if "error" in answer:
        raise InputError(f"the chat template does not take the messages: {answer['error']}")
    return answer["texts"], answer["spans"]
