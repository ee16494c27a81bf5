"""Messages of VLMEvalKit, `{"type": "image" or "text", "value": …}`, as a question with its images in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slime_vlm.errors import DataError


def read_message(message: Sequence[Mapping[str, str]]) -> tuple[str, list[str]]:
    """Take a message apart.

    Returns:
        Its texts, a line each, and the files of its images in their order.

    Raises:
        DataError: it holds something else than texts and images.
    """
    texts, files = [], []
    for part in message:
        if part["type"] == "text":
            texts.append(part["value"])
        elif part["type"] == "image":
            files.append(part["value"])
        else:
            raise DataError(f"a message has a part of type '{part['type']}', expected text or image")
    return "\n".join(texts), files
