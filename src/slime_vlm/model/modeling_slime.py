"""SliME with its language modelling head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from slime_vlm.errors import InputError
from slime_vlm.model.aligned_outputs import trainer_compares
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.generation import SlimeGenerationMixin
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import SlimeCausalLMOutput, SlimeModelOutput, VisionTokens
from slime_vlm.model.pretrained import SlimePreTrainedModel
from slime_vlm.model.question_selector import Selection
from slime_vlm.model.slime_model import SlimeModel
from slime_vlm.model.text_loss import text_loss

_MOST_COPIES = 2**24
"""Characters that the copy output lays out at once."""

__all__ = ["SlimeForConditionalGeneration", "SlimeModel", "SlimePreTrainedModel"]


class SlimeForConditionalGeneration(SlimePreTrainedModel, SlimeGenerationMixin):
    """SliME with its language modelling head: loss, logits and generation."""

    _tied_weights_keys = {  # noqa: RUF012  (the base class's attribute)
        "lm_head.weight": "model.language_model.embed_tokens.weight"
    }

    def __init__(self, config: SlimeConfig) -> None:
        super().__init__(config)
        self.model = SlimeModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the language model."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language modelling head."""
        return self.lm_head

    def encode_image(self, pixel_values: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """See `SlimeModel.encode_image`."""
        return self.model.encode_image(pixel_values, grid)

    def encode_stream(self, chunks: Iterable[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """See `SlimeModel.encode_stream`."""
        return self.model.encode_stream(chunks, grid)

    def encode_frames(self, pixel_values: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """See `SlimeModel.encode_frames`."""
        return self.model.encode_frames(pixel_values, grid)

    def encode_images(self, pixel_values: Tensor, image_grids: Tensor) -> list[VisionTokens]:
        """See `SlimeModel.encode_images`."""
        return self.model.encode_images(pixel_values, image_grids)

    def select(self, *args: Any, **kwargs: Any) -> Selection | None:
        """See `SlimeModel.select`."""
        return self.model.select(*args, **kwargs)

    def get_image_features(
        self, pixel_values: Tensor, image_grids: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """See `SlimeModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, image_grids, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grids: Tensor | None = None,
        question_mask: Tensor | None = None,
        labels: Tensor | None = None,
        vision_tokens: Sequence[VisionTokens] | None = None,
        kept_local_tokens: Sequence[Tensor] | None = None,
        padding_side: str | None = None,
        logits_to_keep: int | Tensor = 0,
        loss_only: bool = False,
        cache: Cache | None = None,
        image_sizes: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        align_outputs: bool | None = None,
        **kwargs: Any,
    ) -> SlimeCausalLMOutput:
        """Compute logits [B, S, vocabulary] of the merged rows, and the loss if there are labels.

        With `align_outputs`, here or in the config, S is the length of `input_ids` instead. If neither decides, so it
        is in the calls of Trainer whose logits it compares with labels (`trainer_compares`).

        The loss is the token mean of the shifted cross-entropy over the whole batch. The inputs are those of
        `SlimeModel.forward`, spelled out because `generate` and `Trainer` take the names of inputs from this signature.
        `logits_to_keep` is the number of last positions with logits (0: all), or a tensor of positions. With
        `loss_only`, as in training, the same loss is computed without logits of unlabelled tokens, and the output has
        no logits.

        Raises:
            InputError: Inputs contradict each other, or `nn.DataParallel` runs the model.
        """
        if getattr(self, "_is_replica", False):
            raise InputError(
                "nn.DataParallel cannot run this model: it deals out views and rows separately, so images reach the "
                "wrong rows; start one process per GPU (torchrun, accelerate launch), or make a single GPU visible"
            )
        return_dict = kwargs.pop("return_dict", None)
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        if align_outputs is None and not loss_only and trainer_compares(num_items_in_batch, labels, self.training):
            align_outputs = True
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache if past_key_values is None else past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grids=image_grids,
            question_mask=question_mask,
            labels=labels,
            vision_tokens=vision_tokens,
            kept_local_tokens=kept_local_tokens,
            padding_side=padding_side,
            image_sizes=image_sizes,
            token_type_ids=token_type_ids,
            align_outputs=align_outputs,
            to_logits=self.logits_of,
            **kwargs,
        )
        passed_on = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        if loss_only and labels is not None:
            hidden, merged_labels = outputs.last_hidden_state, outputs.labels
            to_logits = self.logits_of
            if self.model.copy_output is not None:
                # The copy output needs more of a token than its hidden state, so tokens are named by their index.
                to_logits = partial(self._copying_logits, outputs)
                hidden = torch.arange(merged_labels.numel(), device=hidden.device).view_as(merged_labels)
            labelled_loss = text_loss(to_logits, hidden, merged_labels, num_items_in_batch, together=self.training)
            return _as_requested(SlimeCausalLMOutput(loss=labelled_loss, **passed_on), return_dict)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        # The loss needs all positions, whatever the caller keeps.
        keep = slice(None) if labels is not None else keep
        if self.model.copy_output is None:
            logits = self.logits_of(outputs.last_hidden_state[:, keep])
        else:
            rows, length = outputs.last_hidden_state.shape[:2]
            index = torch.arange(rows * length, device=outputs.last_hidden_state.device).view(rows, length)
            logits = self._copying_logits(outputs, index[:, keep])
        loss = None
        if labels is not None:
            if num_items_in_batch is None:
                # Rows without any label have a loss of 0, as with `loss_only`; a mean over no token would be NaN.
                num_items_in_batch = (outputs.labels[:, 1:] != IGNORED_LABEL).sum().clamp(min=1)
            loss = self.loss_function(
                logits=logits,
                labels=outputs.labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return _as_requested(SlimeCausalLMOutput(loss=loss, logits=logits, **passed_on), return_dict)

    def _copying_logits(self, outputs: SlimeModelOutput, index: Tensor) -> Tensor:
        """Compute the logits of some tokens by the copy output: logarithms of probabilities, float32.

        Their sum is below 1 where pointing heads look at tokens without characters; a softmax takes care of that.

        Args:
            outputs: Of the model.
            index: int64 [...] index of the tokens among all B * S.

        Returns:
            [..., vocabulary].
        """
        hidden, pointing, held = outputs.last_hidden_state, outputs.pointing, outputs.held_characters
        follows = outputs.follows
        assert hidden is not None
        assert follows is not None
        assert pointing is not None
        assert held is not None
        assert self.model.copy_output is not None
        # Most tokens of a text hold nothing to copy.
        columns = (held != 0).any(dim=2).any(dim=0)
        hidden, pointing, held = hidden.flatten(0, 1), pointing[..., columns].flatten(0, 1), held[:, columns]
        flat, length = index.flatten(), outputs.last_hidden_state.shape[1]  # type: ignore[union-attr]
        # In blocks: the characters of all local tokens are laid out for every token.
        block = max(1, _MOST_COPIES // max(1, held[0].numel()))
        parts = [
            self.model.copy_output(
                hidden[part],
                self.logits_of(hidden[part]).float(),
                pointing[part],
                held[part // length],
                follows.flatten()[part],
            )
            for part in flat.split(block)
        ]
        return torch.cat(parts).unflatten(0, index.shape)

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Compute logits [..., vocabulary] of hidden states [..., D] of the language model."""
        logits: Tensor = self.lm_head(hidden)
        bound = getattr(self.config.text_config, "final_logit_softcapping", None)
        # Gemma 2 bounds its logits after the head. That changes sampling and the loss, but not greedy answers.
        return logits if bound is None else bound * torch.tanh(logits / bound)


def _as_requested(output: SlimeCausalLMOutput, return_dict: bool | None) -> Any:
    """Return the output, or with `return_dict=False` the tuple of its values."""
    return output.to_tuple() if return_dict is False else output
