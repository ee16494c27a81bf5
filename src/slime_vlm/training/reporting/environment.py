"""The environment of a run beside its recipe: versions, machine, commit, and fingerprints of the data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slime_vlm import __version__

if TYPE_CHECKING:
    from slime_vlm.data import RecordDataset
    from slime_vlm.training.recipe import MixturePart

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "numpy",
    "Pillow",
    "bitsandbytes",
    "deepspeed",
)
_BLOCK = 1 << 20


def describe_environment(recipe_path: Path, processes: int = 1) -> dict[str, Any]:
    """Return time, versions, machine and commit, as JSON types.

    Args:
        recipe_path: File of the recipe. The commit is that of the checkout that contains it.
        processes: Number of processes of the run.
    """
    versions = {"python": platform.python_version(), "slime-vlm": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "processes": processes,
        "machine": _machine(),
        "versions": versions,
        "commit": commit_of(recipe_path),
    }


def _machine() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit_of(recipe_path: Path) -> dict[str, Any] | None:
    """Return the commit of the git checkout that contains a recipe; None outside of a checkout.

    It is `dirty` if tracked files differ from it, or if the recipe is not tracked.
    """
    path = recipe_path.resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(path.parent), *words], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no") != ""
    return {"commit": commit, "dirty": changed or not git("ls-files", path.name)}


def describe_data(parts: Sequence[MixturePart], dataset: RecordDataset) -> list[dict[str, Any]]:
    """Return the path, the number of records and the fingerprint of every source of a stage, as JSON types."""
    return [
        {"path": part.path, "images": part.images, "records": length, **fingerprint(part.path)}
        for part, length in zip(parts, dataset.lengths, strict=True)
    ]


def fingerprint(name: str) -> dict[str, Any]:
    """Return a fingerprint of a source: the content of a JSON or JSONL file, else the names and sizes of its files.

    Args:
        name: Path of the source in the recipe. A hub id has no fingerprint.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix in (".json", ".jsonl"):
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return {"content": digest.hexdigest()}
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if found.is_file())
        names = [found.relative_to(path).as_posix() for found in files]
    else:
        files = sorted(Path(match) for match in glob(str(path), recursive=True) if Path(match).is_file())
        names = [found.name for found in files]
    if not files:
        return {}
    digest = hashlib.blake2b(digest_size=16)
    for file_name, found in zip(names, files, strict=True):
        digest.update(f"{file_name}\0{found.stat().st_size}\n".encode())
    return {"names_and_sizes": digest.hexdigest(), "files": len(files)}
