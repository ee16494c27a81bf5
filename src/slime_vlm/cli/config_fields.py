"""Read the config fields that `--set FIELD=VALUE` changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from slime_vlm.errors import ConfigError


def parse_config_fields(assignments: Sequence[str], example: str) -> dict[str, Any]:
    """Return the config fields that `--set` names.

    Args:
        assignments: Texts such as `selector_top_p=0.5`. A value that is valid JSON is decoded, any other stays text.
        example: An assignment to show in the error message.

    Raises:
        ConfigError: An assignment has no `=`, or no name before it.
    """
    fields: dict[str, Any] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {text}: expected FIELD=VALUE, such as {example}")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields
