"""The process that renders foreign chat templates, each conversation within limits; see `limited_rendering`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

from slime_vlm.errors import one_line
from slime_vlm.registration import leave_unregistered
from slime_vlm.workers.limits import limit, send_line

_RENDERER = "transformers.utils.chat_template_utils"


def serve(_descriptor: int) -> None:
    """Answer requests from standard input until it ends. There is no shared memory."""
    # Ctrl-C goes to every process of a terminal. The parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_unregistered()
    # Importing it counts against no limit.
    importlib.import_module(_RENDERER)
    # Libraries may write to standard output, which answers need for themselves.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            message = json.loads(line)
            limit(message["memory"], message["seconds"])
            answer = _render(message["arguments"], message["most_characters"] + 4 * len(line))
            limit(None, None)
            send_line(answers, answer)
            answers.flush()
            if answer.get("retires"):
                return


def _render(arguments: dict[str, Any], most_characters: int) -> dict[str, Any]:
    render = importlib.import_module(_RENDERER).render_jinja_template
    try:
        texts, spans = render(**arguments)
    except MemoryError:
        return {"limit": "memory", "retires": True}
    # A template can raise every error that an expression of Python can.
    except Exception as error:
        return {"error": one_line(error)}
    if sum(map(len, texts)) > most_characters:
        return {"limit": "characters", "retires": True}
    return {"texts": texts, "spans": spans}
