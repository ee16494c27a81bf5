"""SliME: a vision-language model for high-resolution images (arXiv 2406.08487)."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slime_vlm.checkpoints.loading import load
    from slime_vlm.model.configuration_slime import SlimeConfig
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration, SlimeModel
    from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
    from slime_vlm.processing.processing_slime import SlimeProcessor

__version__ = "0.1.0"

# Imported on first use, see below.
_LAZY = {
    "load": "slime_vlm.checkpoints.loading",
    "SlimeConfig": "slime_vlm.model.configuration_slime",
    "SlimeProcessor": "slime_vlm.processing.processing_slime",
    "SlimeImageProcessor": "slime_vlm.processing.image_processing_slime",
    "SlimeModel": "slime_vlm.model.modeling_slime",
    "SlimeForConditionalGeneration": "slime_vlm.model.modeling_slime",
}

__all__ = [
    "SlimeConfig",
    "SlimeForConditionalGeneration",
    "SlimeImageProcessor",
    "SlimeModel",
    "SlimeProcessor",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


# Importing the package makes its classes known to transformers' Auto classes and pipelines. That imports torch, which
# takes seconds; the command `slime` has to show its help at once, so there every subcommand imports what it needs.
if "slime_vlm_command" not in sys.modules:
    importlib.import_module("slime_vlm.auto_classes")
