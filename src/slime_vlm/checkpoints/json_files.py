"""Read JSON files of a checkpoint, up to a maximum size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slime_vlm.errors import CheckpointError, one_line

_JSON_BYTES = 64 * 1024**2


def check_folder(folder: Path) -> None:
    """Check that a folder of a checkpoint has files and folders only. Reading a pipe would wait for ever.

    Raises:
        CheckpointError: It has something else.
    """
    if folder.is_dir():
        for path in folder.iterdir():
            check_regular(path)


def check_regular(path: Path) -> None:
    """Check that a path is a file, a folder or missing.

    Raises:
        CheckpointError: It is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path} is a pipe, a socket or a device, expected a file; remove it")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing or is not a JSON object.
    """
    try:
        check_regular(path)
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
