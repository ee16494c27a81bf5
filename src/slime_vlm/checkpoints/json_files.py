"""Read JSON files of a checkpoint, up to a maximum size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slime_vlm.errors import CheckpointError, one_line

_JSON_BYTES = 64 * 1024**2


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing or is not a JSON object.
    """
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise CheckpointError(f"{path} is larger than {_JSON_BYTES // 1024**2} MiB, expected a short JSON file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}, expected a checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}), expected JSON; fetch it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content
