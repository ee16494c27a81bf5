"""SliME: a vision-language model for high-resolution images (arXiv 2406.08487)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slime_vlm.registration import register_when_transformers_is_imported

if TYPE_CHECKING:
    from slime_vlm.checkpoints.loading import load
    from slime_vlm.checkpoints.published.convert import convert
    from slime_vlm.errors import CheckpointError, ConfigError, DataError, InputError, MediaError, SlimeError
    from slime_vlm.inference.answer import Answer
    from slime_vlm.inference.answering import ask, encode
    from slime_vlm.inference.conversation import Conversation
    from slime_vlm.media import open_image
    from slime_vlm.model.configuration_slime import SlimeConfig as SlimeConfig
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration as SlimeForConditionalGeneration
    from slime_vlm.model.modeling_slime import SlimeModel as SlimeModel
    from slime_vlm.processing.image_processing_slime import SlimeImageProcessor as SlimeImageProcessor
    from slime_vlm.processing.processing_slime import SlimeProcessor as SlimeProcessor

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "CheckpointError",
    "ConfigError",
    "Conversation",
    "DataError",
    "InputError",
    "MediaError",
    "SlimeError",
    "ask",
    "convert",
    "encode",
    "load",
    "open_image",
]

# Module of every name, imported when the name is first used.
_MODULES = {
    "Answer": "inference.answer",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "Conversation": "inference.conversation",
    "DataError": "errors",
    "InputError": "errors",
    "MediaError": "errors",
    "SlimeError": "errors",
    "ask": "inference.answering",
    "convert": "checkpoints.published.convert",
    "encode": "inference.answering",
    "load": "checkpoints.loading",
    "open_image": "media",
    # The classes behind the Auto classes of transformers. They can be imported from here, but are not listed.
    "SlimeConfig": "model.configuration_slime",
    "SlimeForConditionalGeneration": "model.modeling_slime",
    "SlimeImageProcessor": "processing.image_processing_slime",
    "SlimeModel": "model.modeling_slime",
    "SlimeProcessor": "processing.processing_slime",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)


# transformers' Auto classes and pipelines know SliME after `import slime_vlm`.
register_when_transformers_is_imported()
