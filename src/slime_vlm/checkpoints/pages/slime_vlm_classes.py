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
