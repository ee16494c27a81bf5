"""Outputs of the model. Everything that the paper names has a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.scorers import token_norms


@dataclass
class VisionTokens:
    """Tokens of one image before selection. They are computed once and serve any number of questions.

    Attributes:
        grid: (rows, columns) of tiles.
        gates: [N, 2] weights of the MLP and the attention adapter. None for a single adapter.
        global_tokens: [N, D]. None if the model does not use the global view.
        local_tokens: [L, D] in the order of merging, without page positions. None if the model does not use tiles. In a
            model with characters they have their page positions: what links words needs them.
        characters: int64 [L, K] ids of the characters that local tokens name, 0 for nothing. None without characters.
        words: [L, W] unit vectors of the words linked to local tokens. None without characters.
        certainties: [L, K] how certain each character is, in 0..1. None without characters.
        contexts: [L, W] what the linker knows of local tokens. None without an answer finder.
    """

    grid: tuple[int, int]
    gates: Tensor | None = None
    global_tokens: Tensor | None = None
    local_tokens: Tensor | None = None
    characters: Tensor | None = None
    words: Tensor | None = None
    certainties: Tensor | None = None
    contexts: Tensor | None = None

    def __post_init__(self) -> None:
        # No fields of the dataclass: FSDP2 rebuilds outputs with `replace`, which takes only what `__init__` takes.
        self._norms: tuple[Tensor, Tensor] | None = None
        self._own_words: tuple[Tensor, Tensor] | None = None

    @property
    def num_local_tokens(self) -> int:
        """Number of local tokens L, 0 if the model does not use tiles."""
        return 0 if self.local_tokens is None else self.local_tokens.shape[0]

    def local_norms(self) -> Tensor:
        """Return the norms [L] of the local tokens, see `scorers.token_norms`.

        They are computed once, so the local tokens must not be changed in place afterwards.
        """
        assert self.local_tokens is not None
        held = self._norms
        if held is None or held[0] is not self.local_tokens:
            held = self._norms = (self.local_tokens, token_norms(self.local_tokens))
        return held[1]

    def own_words(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return the vectors [L, W] of the words that local tokens touch, see `OpenVocabulary.own_words`.

        Without gradients they are computed once, so the characters must not be changed in place afterwards.
        """
        assert self.characters is not None
        if torch.is_grad_enabled():
            return compute()
        held = self._own_words
        if held is None or held[0] is not self.characters:
            held = self._own_words = (self.characters, compute())
        return held[1]

    def to(self, *args: Any, **kwargs: Any) -> VisionTokens:
        """Move or convert all tensors, as `Tensor.to` does."""
        moved = self._map(lambda tensor: tensor.to(*args, **kwargs))
        if self.characters is not None and moved.characters is not None:
            # Ids stay ids.
            moved.characters = self.characters.to(moved.characters.device)
        return moved

    def detach(self) -> VisionTokens:
        """Detach all tensors from the autograd graph."""
        return self._map(torch.Tensor.detach)

    def _map(self, function: Any) -> VisionTokens:
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: function(t) for name, t in tensors.items() if isinstance(t, Tensor)})


@dataclass
class SlimeModelOutput(ModelOutput):
    """Output of `SlimeModel`. S is the length after merging, and tuples hold one entry per image.

    With `align_outputs` S is the length of `input_ids`. The fields of a dropped token are then those of
    the last kept one before it.

    Attributes:
        last_hidden_state: [B, S, D].
        past_key_values: Cache of the language model; `cache` from transformers 5.24 on.
        hidden_states: Hidden states of the language model, if requested.
        attentions: Attention weights of the language model, if requested.
        attention_mask: [B, S] mask of the merged rows. None if nothing was merged.
        position_ids: [B, S] positions of the merged rows. None if nothing was merged.
        labels: [B, S] labels of the merged rows. None without labels.
        token_index: [B, S] index in `input_ids` of every token, -1 in padding. None if nothing was merged.
        adapter_weights: [N, 2] per image, the weights of both adapters for every global token.
        selection_scores: [L] per image, relevance of local tokens to the question.
        selection_probs: [L] per image, the scores as probabilities.
        kept_local_tokens: [L] bool per image.
        vision_tokens: Tokens of the images before selection.
        pointing: [B, S, S'] mean attention of the heads that point, to cached and new tokens. None without copy_output.
        held_characters: int64 [B, S', K] ids of the characters of these tokens, 0 for none. None without copy_output.
        follows: int64 [B, S] character after every token of an answer on the page, 0 for none. None without
            copy_output.
    """

    last_hidden_state: Tensor | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None  # type: ignore[no-redef]
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
    pointing: Tensor | None = None
    held_characters: Tensor | None = None
    follows: Tensor | None = None


@dataclass
class SlimeCausalLMOutput(ModelOutput):
    """Output of `SlimeForConditionalGeneration`: loss, logits [B, S, vocabulary], fields of `SlimeModelOutput`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None  # type: ignore[no-redef]
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
    pointing: Tensor | None = None
    held_characters: Tensor | None = None
    follows: Tensor | None = None
