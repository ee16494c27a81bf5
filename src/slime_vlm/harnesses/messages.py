"""Parse messages of VLMEvalKit, lists of `{"type": "image" or "text", "value": …}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slime_vlm.errors import DataError


def read_message(message: Sequence[Mapping[str, str]]) -> tuple[str, list[str]]:
    """Split a message into its text and its images.

    Args:
        message: Parts with the keys `type` and `value`.

    Returns:
        The texts, joined by line ends, and the files of the images in order.

    Raises:
        DataError: The message has a part that is neither text nor image.
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
