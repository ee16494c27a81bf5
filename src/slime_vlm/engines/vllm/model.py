"""SliME on vLLM: the vision parts and the selection are this package's, the language model is vLLM's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from slime_vlm.engines.vllm.processor import SlimeDummyInputsBuilder, SlimeMultiModalProcessor, SlimeProcessingInfo
from slime_vlm.engines.vllm.token_cache import TokenCache
from slime_vlm.errors import CheckpointError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import keep_most_probable
from slime_vlm.model.slime_selection import SlimeSelection
from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER

CACHE_MB = "SLIME_VLLM_CACHE_MB"
"""Environment variable: megabytes of image tokens that a worker keeps for further questions. Default 512."""


class ImageEncoder(SlimeSelection):
    """The vision parts of SliME with the selection.

    Args:
        config: Config of the model.
        embed: Embeds token ids [...] with the language model's table: [..., D].
    """

    def __init__(self, config: SlimeConfig, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__(config)
        self._embed = embed
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Return what embeds token ids. The language model holds the weights."""
        return self._embed

    def image_block(self, tokens: VisionTokens, text_ids: Tensor, budget: int) -> Tensor:
        """Select by a text [S], and return the tokens [n, D] of an image as they enter the sequence.

        Args:
            tokens: Tokens of the image.
            text_ids: Ids that the selector compares with.
            budget: Number of local tokens to keep, 0 for all.
        """
        kept = None
        if budget:
            probs = self.select_by_text(tokens, text_ids).probs
            lengths = torch.tensor([tokens.num_local_tokens], device=probs.device)
            kept = [keep_most_probable(probs, lengths, 1.0, budget)[0]]
        return self.image_blocks([tokens], kept)[0]


@MULTIMODAL_REGISTRY.register_processor(
    SlimeMultiModalProcessor, info=SlimeProcessingInfo, dummy_inputs=SlimeDummyInputsBuilder
)
class SlimeForConditionalGeneration(nn.Module, SupportsLoRA, SupportsMultiModal):
    """SliME with vLLM's language model. The name is that of the architecture in config.json."""

    packed_modules_mapping = {  # noqa: RUF012  (the protocol's attribute)
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
            "model.": "encoder.",
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: SlimeConfig = vllm_config.model_config.hf_config
        self.config = config
        # mypy does not read vLLM, and takes its methods for attributes of a plain module.
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_id])  # type: ignore[operator]
        names = config.text_config.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.text_config.model_type]]
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                architectures=names,
                prefix=maybe_prefix(prefix, "language_model"),
            )
        with self._mark_tower_model(vllm_config, "image"):  # type: ignore[operator]
            encoder = ImageEncoder(config, self.language_model.embed_input_ids)
            self.encoder = encoder.to(vllm_config.model_config.dtype).eval()
        self.token_cache = TokenCache(int(float(os.environ.get(CACHE_MB, "512")) * 2**20))

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """Return the text that stands for an image."""
        return IMAGE_PLACEHOLDER if modality == "image" else None

    def get_mm_mapping(self) -> MultiModelKeys:
        """Return the parts, so that LoRA adapters change the language model alone."""
        return MultiModelKeys.from_string_field(language_model="language_model", tower_model="encoder")

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """Encode images, select by the text of each, and return their tokens [n, D]."""
        pixel_values = kwargs.get("pixel_values")
        if pixel_values is None:
            return []
        parts = zip(
            self._encode(pixel_values, kwargs["image_grids"], kwargs["digest"]), kwargs["selector_text"], strict=True
        )
        return [
            self.encoder.image_block(tokens, text_ids, budget)
            for (tokens, text_ids), budget in zip(parts, kwargs["budget"].tolist(), strict=True)
        ]

    def _encode(self, pixel_values: Tensor, grids: Tensor, digests: Tensor) -> list[VisionTokens]:
        """Encode the images that are not in the cache.

        Args:
            pixel_values: [V, 3, H, W] views of all images.
            grids: [I, 2].
            digests: uint8 [I, 16] digests of the views of every image.
        """
        views = pixel_values.split((1 + grids.prod(dim=1)).tolist())
        keys = [bytes(digest.tolist()) for digest in digests]
        found = {
            key: tokens.to(pixel_values.device) for key in keys if (tokens := self.token_cache.get(key)) is not None
        }
        new = {key: index for index, key in enumerate(keys) if key not in found}
        if new:
            index = list(new.values())
            encoded = self.encoder.encode_images(torch.cat([views[i] for i in index]), grids[index])
            for key, tokens in zip(new, encoded, strict=True):
                found[key] = tokens
                self.token_cache.put(key, tokens)
        return [found[key] for key in keys]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor | IntermediateTensors:
        """Run the language model on embeddings that already hold the images."""
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Compute logits of hidden states of the language model."""
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the tensors of a native checkpoint.

        Raises:
            CheckpointError: Tensors of the vision parts are missing, unknown or of another shape.
        """
        own: dict[str, Tensor] = {}

        def of_language_model() -> Iterable[tuple[str, Tensor]]:
            for name, tensor in self.hf_to_vllm_mapper.apply(weights):
                part, _, rest = name.partition(".")
                if part == "language_model":
                    yield rest, tensor
                else:
                    own[rest] = tensor

        loaded = {f"language_model.{name}" for name in self.language_model.load_weights(of_language_model())}
        if not isinstance(self.encoder, ImageEncoder):
            return loaded  # vLLM left it out: no image is allowed.
        try:
            self.encoder.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(f"the vision parts do not fit the config: {' '.join(str(error).split())}") from None
        return loaded | {f"encoder.{name}" for name in own}
