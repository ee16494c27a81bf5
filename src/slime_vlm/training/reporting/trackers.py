"""The trackers that receive the curves of a run: TensorBoard, trackio or wandb, through transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from slime_vlm.errors import ConfigError

TRACKERS = ("tensorboard", "trackio", "wandb")


def check_trackers(names: Sequence[str]) -> None:
    """Check that the trackers of a run are installed.

    Raises:
        ConfigError: A tracker is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            rest = [other for other in names if other != name]
            raise ConfigError(
                f"'trackers' names {name}, which is not installed: pip install {name}, or --set "
                f"'trackers=[{', '.join(rest)}]'"
            )
