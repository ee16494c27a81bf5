"""The layouts of checkpoints, recognised by their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PUBLISHED_MODEL_TYPES = ("llava_llama",)
"""Model types of the authors' layout."""


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of the published layout."""
    return config.get("model_type") in PUBLISHED_MODEL_TYPES or "mm_vision_tower" in config
