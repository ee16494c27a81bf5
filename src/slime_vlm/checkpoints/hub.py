"""Where a checkpoint lies: inside the package, in a folder, on the hub or in its cache."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from slime_vlm.errors import CheckpointError, one_line

SHIPPED = {"nano": Path(__file__).parent / "nano"}
"""Checkpoints inside the package."""

_FILES = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja"]


def resolve(name_or_path: str | Path) -> Path:
    """Find the folder of a checkpoint; hub ids are downloaded unless the cache has them.

    Raises:
        CheckpointError: There is none.
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
        return Path(snapshot_download(name, allow_patterns=_FILES))
    # The hub client raises many kinds of errors (network, permissions, names), all of which mean the same here.
    except Exception as error:
        raise CheckpointError(f"{name}: neither a folder here nor on the hub ({one_line(error)})") from None


def at_hand(name: str) -> Path | None:
    """The folder of a checkpoint if it is on this machine, a folder or in the hub's cache; never downloads."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or len(path.parts) != 2:
        return None
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
    # As above; not being there is no error here.
    except Exception:
        return None
