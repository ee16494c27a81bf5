"""Find the folder of a checkpoint: inside the package, on this machine, on the hub or in the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from slime_vlm.errors import CheckpointError, one_line

SHIPPED = {name: Path(__file__).parent / name for name in ("nano", "pages")}
"""Checkpoints inside the package."""

_FILES = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja"]


def resolve(name_or_path: str | Path) -> Path:
    """Find the folder of a checkpoint. A hub id is downloaded unless the cache has it.

    Args:
        name_or_path: A name in `SHIPPED`, a folder, or a hub id, also at a branch, tag or commit:
            `owner/name@revision`. The folder of a hub id is named after its commit.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    name = str(name_or_path)
    if name in SHIPPED:
        if not SHIPPED[name].is_dir():
            raise CheckpointError(f"'{name}' is not in this installation, expected it at {SHIPPED[name]}; reinstall")
        return SHIPPED[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file, expected a checkpoint folder")
    if path.is_absolute() or name.startswith((".", "~")) or len(path.parts) != 2:
        raise CheckpointError(
            f"{name}: no such folder, expected {', '.join(SHIPPED)}, a checkpoint folder or a hub id (owner/name)"
        )
    try:
        return Path(snapshot_download(**_revision(name), allow_patterns=_FILES))
    # The hub client raises many kinds of errors (network, permissions, names). All mean the same here.
    except Exception as error:
        raise CheckpointError(f"{name}: neither a local folder nor on the hub ({one_line(error)})") from None


def _revision(name: str) -> dict[str, Any]:
    """Split a hub id into the arguments of `snapshot_download`."""
    repository, _, revision = name.partition("@")
    return {"repo_id": repository, "revision": revision or None}


def at_hand(name: str) -> Path | None:
    """Return the folder of a checkpoint if it is on this machine or in the hub's cache, else None. Never download."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or len(path.parts) != 2:
        return None
    try:
        return Path(snapshot_download(**_revision(name), allow_patterns=_FILES, local_files_only=True))
    # As above. A missing checkpoint is not an error here.
    except Exception:
        return None
