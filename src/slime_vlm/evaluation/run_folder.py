"""The folder of an evaluation: which model and settings it belongs to.

run.json                  model, settings, and for each task its records
TASK/predictions.jsonl    see `predictions`; an ablation's lies beside run.json
TASK/judgements.jsonl     what a judge replied
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

# Read at either end of a file of weights, so that large checkpoints are told apart in no time.
_SAMPLE = 1 << 20


def fingerprint(folder: Path) -> str:
    """A short hash of a checkpoint: its JSON files whole, of its weights names, sizes, first and last MiB."""
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
    """The `settings` and `tasks` of a run's folder; empty for another folder."""
    try:
        content = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def claim(out: Path, settings: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the folder of a run, or check that it is of the same model and settings; new tasks may join.

    A run that ended before its first prediction, for a slip in its settings, binds nobody.

    Args:
        out: the folder.
        settings: what all tasks share: model, fingerprint, type, device, overrides.
        tasks: by name, what else their predictions depend on: split, records, length of answers.

    Raises:
        ConfigError: it holds a run that differs, or cannot be made.
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
        # Every process of a run writes the same, and none may take another's half away.
        part = path.with_name(f"{FILE}.{os.getpid()}.part")
        content = {"settings": dict(settings), "tasks": {**known.get("tasks", {}), **tasks}}
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
        part.replace(path)
    except (json.JSONDecodeError, KeyError) as error:
        raise ConfigError(f"{path} is not of an evaluation ({error}); use another --out") from None
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; choose another folder") from None
