"""Find the folder of a checkpoint: inside the package, on this machine, on the hub or in the hub's cache."""

from __future__ import annotations

import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import DryRunFileInfo, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import tqdm

from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.errors import CheckpointError, SlimeError, one_line

_SETTINGS = ["*.json", "*.model", "*.jinja", "*merges.txt", "*vocab.txt"]
_WEIGHTS = ["*.safetensors", "*.bin"]
_COMMIT = re.compile("[0-9a-f]{40}")
# Many repositories have the same weights in both forms.
_SAFE, _TWICE = "model*.safetensors", "pytorch_model*.bin"

# The largest tokenizers have 40 MB.
_SETTINGS_BYTES = 256 * 1024**2
# What a download leaves free on the disk.
_SPARE_BYTES = 1024**3


def resolve(name_or_path: str | Path) -> Path:
    """Find the folder of a checkpoint. A hub id is downloaded unless the cache has it.

    Args:
        name_or_path: A name in `SHIPPED`, a folder, or a hub id, also at a branch, tag or commit:
            `owner/name@revision`. The folder of a hub id is named after its commit.

    Raises:
        CheckpointError: There is no such checkpoint, or it is too large for the disk.
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
    return download(name)


def download(name: str, *, weights: bool = True) -> Path:
    """Download a checkpoint of the hub unless the cache has it, and return its folder.

    The sizes of all files are checked before the first of them is fetched.

    Args:
        name: A hub id, see `resolve`.
        weights: Whether to fetch the weights, too. The configs and the tokenizer alone are small.

    Raises:
        CheckpointError: There is no such checkpoint, or it is too large.
    """
    arguments = _arguments(name, weights)
    found = at_hand(name, weights=weights) if _COMMIT.fullmatch(arguments["revision"] or "") else None
    try:
        if found is None:
            found = _fetch(name, arguments)
    except SlimeError:
        raise
    # The hub client raises many kinds of errors (network, permissions, names). All mean the same here.
    except Exception as error:
        found = at_hand(name, weights=weights)
        if found is None:
            raise CheckpointError(f"{name}: neither a local folder nor on the hub ({one_line(error)})") from None
    return found


class _Silent(tqdm):
    """A progress bar that is not shown."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": True})


def _fetch(name: str, arguments: dict[str, Any]) -> Path:
    plan = snapshot_download(**arguments, dry_run=True, tqdm_class=_Silent)
    files = {file.filename: file for file in plan}
    if any(fnmatch(file, _SAFE) for file in files):
        arguments = {**arguments, "ignore_patterns": [_TWICE]}
        files = {file: info for file, info in files.items() if not fnmatch(file, _TWICE)}
    _check_sizes(name, files)
    # At the commit whose sizes were checked.
    return Path(snapshot_download(**{**arguments, "revision": plan[0].commit_hash}))


def _check_sizes(name: str, files: dict[str, DryRunFileInfo]) -> None:
    if not files:
        raise CheckpointError(f"{name} has no files of a checkpoint on the hub, expected a config.json and weights")
    settings = sum(
        info.file_size for file, info in files.items() if not any(fnmatch(file, pattern) for pattern in _WEIGHTS)
    )
    if settings > _SETTINGS_BYTES:
        raise CheckpointError(
            f"{name} has {_gigabytes(settings)} of configs and tokenizer on the hub, expected at most "
            f"{_gigabytes(_SETTINGS_BYTES)}; do not use it"
        )
    missing = sum(info.file_size for info in files.values() if info.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if missing and missing > free - _SPARE_BYTES:
        raise CheckpointError(
            f"{name} takes {_gigabytes(missing)} to download, but {cache} has {_gigabytes(free)} free, of which "
            f"{_gigabytes(_SPARE_BYTES)} must stay; free some space, or set HF_HOME to another disk"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _arguments(name: str, weights: bool) -> dict[str, Any]:
    """Split a hub id into the arguments of `snapshot_download`."""
    repository, _, revision = name.partition("@")
    return {
        "repo_id": repository,
        "revision": revision or None,
        "allow_patterns": [*_SETTINGS, *_WEIGHTS] if weights else _SETTINGS,
    }


def at_commit(name: str) -> str:
    """Name the commit of a hub id, so that all its files are of one version: `owner/name@commit`.

    Everything else, a local path among others, is returned as it is.

    Raises:
        CheckpointError: See `download`.
    """
    if not is_hub_id(name):
        return name
    return f"{name.partition('@')[0]}@{download(name, weights=False).name}"


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository on the hub, and is no path of this machine."""
    path = Path(name).expanduser()
    return not (path.exists() or path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2)


def at_hand(name: str, *, weights: bool = True) -> Path | None:
    """Return the folder of a checkpoint if it is on this machine or in the hub's cache, else None. Never download.

    Args:
        name: A folder or a hub id.
        weights: Whether the cache must have the weights, too.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or len(path.parts) != 2:
        return None
    try:
        return _cached(name, weights)
    # As above. A missing checkpoint is not an error here.
    except Exception:
        return None


def _cached(name: str, weights: bool) -> Path:
    """Return the folder of a hub id in the cache, if it has all files or all but the weights in their second form."""
    arguments = {**_arguments(name, weights), "local_files_only": True}
    try:
        return Path(snapshot_download(**arguments))
    except LocalEntryNotFoundError:
        folder = Path(snapshot_download(**arguments, ignore_patterns=[_TWICE]))
        if not any(folder.glob(_SAFE)):
            raise
        return folder
