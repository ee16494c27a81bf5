"""The folder of a run: its recipe, its finished stages, and failures to write to it.

recipe.yaml              the resolved recipe
STAGE.lock               names the process that trains the stage; empty if there is none
STAGE/checkpoint-N/      to resume from; complete if it holds the manifest `complete` (`checkpoint_manifest`)
STAGE/damaged-*          checkpoints and models whose files changed after they were written
STAGE/runs/              TensorBoard events
STAGE/environment.json   for every start of the stage: versions, machine, commit, fingerprint of the data
STAGE/data.json          fingerprints of the data that the stage began with
STAGE/curves.png         loss, rate, throughput
STAGE/model/             the model after the stage, with a card; finished if it holds `stage.json`
"""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from slime_vlm.errors import CheckpointError, ConfigError, one_line
from slime_vlm.training.checkpoint_manifest import damage_of_files, describe_files, sync, write_at_once
from slime_vlm.training.recipe import Recipe, Stage, load_stored_recipe, recipe_dict

RECIPE_FILE = "recipe.yaml"
STAGE_FILE = "stage.json"
"""File that marks a finished stage; it is written last into the folder of the stage's model."""
CARD_FILE = "README.md"
"""Model card of a finished stage."""

# Keys that may change between a run and its continuation, since they do not influence any weight.
_WITHOUT_EFFECT = {"description", "trackers", "source", "save_minutes", "max_bad", "workers", "folder", "max_gib"}

_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def stage_folders(recipe: Recipe, stage: Stage, out: Path) -> list[Path]:
    """Return the model folders that a stage starts from; empty if it starts from the recipe's model."""
    names = [s.name for s in recipe.stages]
    index = names.index(stage.name)
    before = stage.start if stage.start is not None else names[max(0, index - 1) : index]
    return [out / name / "model" for name in before]


def lock_file(out: Path, stage: str) -> Path:
    """Return the lock file of a stage. It lies beside the stage's folder, which tells that the stage has begun."""
    return out / f"{stage}.lock"


def is_finished(model_folder: Path) -> bool:
    """Return whether a stage's model was written completely."""
    return (model_folder / STAGE_FILE).is_file()


def write_marker(model_folder: Path, record: dict[str, Any]) -> None:
    """Mark a stage's model as finished, atomically, when its files are on the disk. The mark has their hashes.

    The model card is left out, since users complete it.
    """
    sync(model_folder)
    files = describe_files(model_folder, without=(STAGE_FILE, CARD_FILE))
    write_at_once(model_folder / STAGE_FILE, json.dumps({**record, "files": files}, indent=1))


def damage_of_model(model_folder: Path) -> str | None:
    """Compare a finished stage's model with the hashes of its mark.

    Returns:
        The first difference; None if there is none, or if the mark is of an earlier version without hashes.
    """
    try:
        record = json.loads((model_folder / STAGE_FILE).read_text(encoding="utf-8"))
        return damage_of_files(model_folder, record.get("files", {}))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{STAGE_FILE} cannot be read"


def claim(out: Path, recipe: Recipe, stages: Collection[str]) -> None:
    """Create the folder of a run, or check that it belongs to this recipe.

    Stages that have not begun, and stages that the chosen ones do not build on, may have changed. No stage that has
    begun may be missing: under another name it would be trained from its start, beside what is there.

    Args:
        out: Folder of the run.
        recipe: The recipe to run.
        stages: Names of the chosen stages.

    Raises:
        ConfigError: The folder holds a run of another recipe, or is a file.
        CheckpointError: It cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, expected a folder for the run; choose another --out")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        path = out / RECIPE_FILE
        if path.is_file():
            begun = {folder.name for folder in out.iterdir() if folder.is_dir()}
            saved = _saved(path) if begun else recipe
            known = [stage.name for stage in recipe.stages]
            lost = [f"'{stage.name}'" for stage in saved.stages if stage.name in begun and stage.name not in known]
            if lost:
                raise ConfigError(
                    f"{out} holds a run that has begun stage {', '.join(lost)}, but this recipe has only "
                    f"{', '.join(known)}; use the recipe as it was ({path}), another --out, or delete that file to go "
                    "on without that stage"
                )
            changes = _changes(saved, recipe, begun & _with_ancestors(recipe, stages))
            if changes:
                more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
                raise ConfigError(
                    f"{out} holds a run of another recipe: {'; '.join(changes[:3])}{more}; use another --out, use "
                    f"the recipe as it was ({path}), or delete that file to continue with the new one"
                )
        write_at_once(path, yaml.safe_dump(recipe_dict(recipe), sort_keys=False, allow_unicode=True))


def _saved(path: Path) -> Recipe:
    try:
        return load_stored_recipe(path)
    except ConfigError as error:
        raise ConfigError(f"{error} (written by another version? delete that file to continue unchecked)") from error


def stages_before(recipe: Recipe, stage: Stage) -> list[str]:
    """Return the names of all stages that a stage builds on, in the order of the recipe."""
    found = _with_ancestors(recipe, [stage.name]) - {stage.name}
    return [other.name for other in recipe.stages if other.name in found]


def _with_ancestors(recipe: Recipe, stages: Collection[str]) -> set[str]:
    """Return the named stages and all stages that they start from, directly or not."""
    by_name = {stage.name: stage for stage in recipe.stages}
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [folder.parent.name for folder in stage_folders(recipe, by_name[name], Path())]
    return found


def _changes(saved: Recipe, recipe: Recipe, begun: Collection[str]) -> list[str]:
    before, now = _flat(saved, begun), _flat(recipe, begun)
    return [
        f"{key} was {before.get(key, 'absent')}, now {now.get(key, 'absent')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]


def _flat(recipe: Recipe, begun: Collection[str]) -> dict[str, Any]:
    """Return the values of a recipe that matter, by dotted keys as in `--set`."""
    flat: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                if key not in _WITHOUT_EFFECT:
                    walk(inner, f"{name}.{key}" if name else str(key))
        else:
            flat[name] = value

    plain = recipe_dict(recipe)
    walk({**plain, "stages": {stage["name"]: stage for stage in plain["stages"] if stage["name"] in begun}}, "")
    return flat


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn failures to write into an error of one line.

    Raises:
        CheckpointError: The disk is full, or the folder is not writable.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_write_error(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise CheckpointError(
            f"cannot write to {folder}: {reason}; free some space or choose another --out, then continue with --resume"
        ) from error


def _is_write_error(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _WRITE_ERRORS
    # safetensors and torch wrap errors of the operating system in their own.
    text = str(error)
    return "os error" in text or "file write failed" in text or "unexpected pos" in text
