"""Check a model when vLLM reads its config, and choose the renderer."""

from __future__ import annotations

from vllm.config import ModelConfig
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from slime_vlm.engines.vllm.limits import check_servable
from slime_vlm.errors import ConfigError, SlimeError

TOKENIZER_MODE = "slime"
"""vLLM's name of `renderer.SlimeRenderer`. The tokenizer itself stays vLLM's."""


class SlimeModelConfig(VerifyAndUpdateConfig):
    """vLLM calls it once it knows the architecture, before it loads anything else."""

    @staticmethod
    def verify_and_update_model_config(model_config: ModelConfig) -> None:
        """Refuse what cannot be served, and tokenize prompts by `renderer.SlimeRenderer`.

        Raises:
            SlimeError: The model cannot be served. No ValueError, around which pydantic would write lines of its own.
        """
        try:
            check_servable(model_config.hf_config)
        except ConfigError as error:
            raise SlimeError(str(error)) from None
        model_config.tokenizer_mode = TOKENIZER_MODE
