"""Recipe keys of earlier versions, and where each of them has moved."""

from __future__ import annotations

from typing import Any

PAGE_KEYS = {
    "objective": "objective",
    "tiles_read": "tiles_read",
    "questions": "questions",
    "oracle": "symbolic_tokens",
    "selector_loss": "selector_loss",
    "context_loss": "context_loss",
    "pointing_loss": "pointing_loss",
    "copying_loss": "copying_loss",
    "reading_loss": "reading_loss",
    "global_reading_loss": "global_reading_loss",
}
"""Former keys of a stage, and their names under its `page_training`."""

OBJECTIVES = {"oracle": "symbolic_tokens"}
"""Former values of `objective`, and what they are called now."""


def move_former_keys(raw: Any) -> list[str]:
    """Move the keys of an earlier version to where they are now.

    Args:
        raw: Plain data of a recipe, changed in place. Data that is not a recipe is left alone.

    Returns:
        One message per key that was found; it names the stages and the new key.
    """
    stages = raw.get("stages") if isinstance(raw, dict) else None
    found: dict[tuple[str, str], list[str]] = {}
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        for change in _move_page_keys(stage) if isinstance(stage, dict) else []:
            found.setdefault(change, []).append(f"'{stage.get('name', index)}'")
    return [f"'{old}' of stage {', '.join(names)} is now '{new}'" for (old, new), names in found.items()]


def _move_page_keys(stage: dict[str, Any]) -> list[tuple[str, str]]:
    """Move the keys of one stage; return what was found, with what it is now."""
    changes, moved = [], {}
    for key in [key for key in PAGE_KEYS if key in stage]:
        name, former = PAGE_KEYS[key], stage.pop(key)
        if key == "objective" and isinstance(former, str) and former in OBJECTIVES:
            moved[name] = OBJECTIVES[former]
            changes.append((f"{key}: {former}", f"page_training.{name}: {moved[name]}"))
        else:
            moved[name] = former
            changes.append((key, f"page_training.{name}"))
    data = stage.get("data")
    # On records these keys never had an effect, and a stored recipe holds their defaults.
    if moved and isinstance(data, dict) and data.get("pages") is not None:
        given = stage.setdefault("page_training", {})
        if isinstance(given, dict):
            stage["page_training"] = {**moved, **given}
    return changes
