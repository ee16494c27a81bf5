"""The vLLM plug-in: vLLM's servers run native SliME checkpoints with a fixed budget of local tokens.

vLLM finds `register` by the entry point of the group `vllm.general_plugins`, and calls it in each of its processes.
Nothing else of the package imports this one, and it imports vLLM only inside `register`.

The selection depends on the question, which vLLM's cache of images does not know. The text of a prompt is therefore
part of every image of it, and of its key: see `processor`.
"""

from __future__ import annotations

ARCHITECTURE = "SlimeForConditionalGeneration"
"""Name in `architectures` of config.json."""


def register() -> None:
    """Register SliME with vLLM. It may be called any number of times."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    import slime_vlm.auto_classes  # noqa: F401  # AutoConfig has to know SliME.
    from slime_vlm.engines.vllm.model_config import TOKENIZER_MODE, SlimeModelConfig

    if ARCHITECTURE in MODELS_CONFIG_MAP:
        return
    MODELS_CONFIG_MAP[ARCHITECTURE] = SlimeModelConfig
    # By name: vLLM imports it in a process of its own, since torch may not touch a GPU before workers start.
    ModelRegistry.register_model(ARCHITECTURE, f"slime_vlm.engines.vllm.model:{ARCHITECTURE}")
    TokenizerRegistry.register(TOKENIZER_MODE, "vllm.tokenizers.hf", "CachedHfTokenizer")
    RENDERER_REGISTRY.register(TOKENIZER_MODE, "slime_vlm.engines.vllm.renderer", "SlimeRenderer")
