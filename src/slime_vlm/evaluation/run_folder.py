"""Bind the folder of an evaluation to one model and one set of settings.

run.json                  model, settings, and the records of each task
TASK/predictions.jsonl    see `predictions`; an ablation's lies beside run.json
TASK/judgements.jsonl     replies of a judge
TASK/submission.json      for tasks that a server scores
results.json, results.md, *.png
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError

FILE = "run.json"

# Bytes to hash at either end of a weight file, so that large checkpoints are told apart quickly.
_SAMPLE = 1 << 20


def fingerprint(folder: Path) -> str:
    """Return a short hash of a checkpoint: its JSON files, and names, sizes, first and last MiB of its weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".jinja", ".model", ".safetensors", ".bin"} or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix in {".safetensors", ".bin"} and size > 2 * _SAMPLE:
                digest.update(file.read(_SAMPLE))
                file.seek(-_SAMPLE, 2)
            digest.update(file.read())
    return digest.hexdigest()[:16]


def read_run(out: Path) -> dict[str, Any]:
    """Return the `settings` and `tasks` of a run folder, or nothing for any other folder."""
    try:
        content = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def claim(out: Path, settings: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Create the folder of a run, or check that an existing one has the same model and settings.

    New tasks may join an existing run. A run that ended before its first prediction does not bind the folder.

    Args:
        out: The folder.
        settings: What all tasks share: model, fingerprint, type, overrides.
        tasks: For each task by name, what else its predictions depend on: split, records, maximum length of answers.

    Raises:
        ConfigError: The folder holds a run that differs, or cannot be created.
    """
    path = out / FILE
    known: dict[str, Any] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.is_file() and any((*out.glob("predictions*.jsonl"), *out.glob("*/predictions*.jsonl"))):
            known = json.loads(path.read_text(encoding="utf-8"))
            changes = [
                f"{name} was {known['settings'].get(name)!r} and is {settings.get(name)!r}"
                for name in {**settings, **known["settings"]}
                if known["settings"].get(name) != settings.get(name)
            ]
            for task, values in tasks.items():
                before = known["tasks"].get(task)
                changes += [
                    f"{task}: {name} was {before.get(name)!r} and is {value!r}"
                    for name, value in values.items()
                    if before is not None and before.get(name) != value
                ]
            if changes:
                raise ConfigError(f"{out} holds another run: {'; '.join(changes[:3])}; use another --out")
        # Every process writes the same content; a name of its own keeps it from replacing a half-written file.
        part = path.with_name(f"{FILE}.{os.getpid()}.part")
        content = {"settings": dict(settings), "tasks": {**known.get("tasks", {}), **tasks}}
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
        part.replace(path)
    except (json.JSONDecodeError, KeyError) as error:
        raise ConfigError(f"{path} does not belong to an evaluation ({error}); use another --out") from None
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; choose another folder") from None
