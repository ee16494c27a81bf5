"""The stub module of a saved folder, by which transformers' Auto classes find SliME with `trust_remote_code=True`.

`auto_map` in a JSON file of the folder names a class in a module beside it. Elsewhere that module is a copy of the
source. Here it imports the installed package, so that a folder never runs an old copy.
Source: https://huggingface.co/docs/transformers/custom_models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

STUB_FILE = "slime_vlm_classes.py"

STUB = '''\
"""The classes of this model, for transformers' Auto classes with trust_remote_code=True. Their code is in slime-vlm."""

try:
    from slime_vlm import (
        SlimeConfig,
        SlimeForConditionalGeneration,
        SlimeImageProcessor,
        SlimeModel,
        SlimeProcessor,
    )
except ModuleNotFoundError as error:
    if error.name != "slime_vlm":
        raise
    raise ImportError("this model needs the package slime-vlm, which is not installed: pip install slime-vlm") from None

__all__ = ["SlimeConfig", "SlimeForConditionalGeneration", "SlimeImageProcessor", "SlimeModel", "SlimeProcessor"]
'''
"""Text of the stub. transformers does not check imports inside `try`, so the message is this one."""


def _references(**classes: str) -> dict[str, str]:
    return {auto_class: f"{Path(STUB_FILE).stem}.{name}" for auto_class, name in classes.items()}


CONFIG_AUTO_MAP = _references(
    AutoConfig="SlimeConfig",
    AutoModel="SlimeModel",
    AutoModelForImageTextToText="SlimeForConditionalGeneration",
    AutoProcessor="SlimeProcessor",
)
"""`auto_map` of config.json."""

PROCESSOR_AUTO_MAP = _references(AutoProcessor="SlimeProcessor")
"""`auto_map` of processor_config.json and tokenizer_config.json."""

IMAGE_PROCESSOR_AUTO_MAP = _references(AutoImageProcessor="SlimeImageProcessor")
"""`auto_map` of an image processor."""


def write_stub(folder: Any) -> None:
    """Write the stub into a folder, which is created."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / STUB_FILE).write_text(STUB, encoding="utf-8")
