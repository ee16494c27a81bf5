"""What the model hands back: everything the paper talks about has a name here."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput


@dataclass
class VisionTokens:
    """Tokens of one image before selection: computed once, good for any number of questions.

    Attributes:
        grid: (rows, columns) of tiles.
        gates: [N, 2] weights of the MLP and the attention adapter; None when one adapter stands alone.
        global_tokens: [N, D], or None when the global view is left out.
        local_tokens: [L, D] in the order of merging, without page positions; None when tiles are left out.
    """

    grid: tuple[int, int]
    gates: Tensor | None = None
    global_tokens: Tensor | None = None
    local_tokens: Tensor | None = None

    @property
    def num_local_tokens(self) -> int:
        """Number of local tokens L, 0 when tiles are left out."""
        return 0 if self.local_tokens is None else self.local_tokens.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> VisionTokens:
        """Move or convert all tensors, as `Tensor.to` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> VisionTokens:
        """Cut all tensors off from the graph that made them."""
        return self._map(torch.Tensor.detach)

    def _map(self, function: Any) -> VisionTokens:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(t) for name, t in tensors.items() if isinstance(t, Tensor)})


@dataclass
class SlimeModelOutput(ModelOutput):
    """Output of `SlimeModel`; S is the length after merging, tuples hold one entry per image.

    Attributes:
        last_hidden_state: [B, S, D].
        past_key_values: Cache of the language model.
        hidden_states: Hidden states of the language model, when asked for.
        attentions: Attention weights of the language model, when asked for.
        attention_mask: [B, S] mask of the merged rows; None when nothing was merged.
        position_ids: [B, S] positions of the merged rows; None when nothing was merged.
        labels: [B, S] labels of the merged rows; None without labels.
        token_index: [B, S] place of every token in `input_ids`, -1 in padding; None when nothing was merged.
        adapter_weights: [N, 2] per image, how much each global token takes from either adapter.
        selection_scores: [L] per image, relevance of local tokens to the question.
        selection_probs: [L] per image.
        kept_local_tokens: [L] bool per image.
        vision_tokens: The images' tokens before selection.
    """

    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    token_index: Tensor | None = None
    adapter_weights: tuple[Tensor, ...] | None = None
    selection_scores: tuple[Tensor, ...] | None = None
    selection_probs: tuple[Tensor, ...] | None = None
    kept_local_tokens: tuple[Tensor, ...] | None = None
    vision_tokens: tuple[VisionTokens, ...] | None = None


@dataclass
class SlimeCausalLMOutput(ModelOutput):
    """Output of `SlimeForConditionalGeneration`: loss, logits [B, S, vocabulary], then as `SlimeModelOutput`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    token_index: Tensor | None = None
    adapter_weights: tuple[Tensor, ...] | None = None
    selection_scores: tuple[Tensor, ...] | None = None
    selection_probs: tuple[Tensor, ...] | None = None
    kept_local_tokens: tuple[Tensor, ...] | None = None
    vision_tokens: tuple[VisionTokens, ...] | None = None
