"""Run the language model over a prompt, in chunks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.copying_run import CopyingRun, run_copying
from slime_vlm.model.growing_cache import cache_after
from slime_vlm.serving.answer_state import AnswerState
from slime_vlm.serving.prompts import Prompt

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

Layers: TypeAlias = list[tuple[Tensor, Tensor]]
"""Keys and values [1, heads, S, width] of every layer."""


@dataclass
class Prefilled:
    """A prompt that the language model has processed.

    Attributes:
        logits: [1, vocabulary] for the first token of the answer.
        layers: Keys and values.
        state: What decoding needs beside them. None for a model without characters.
    """

    logits: Tensor
    layers: Layers
    state: AnswerState | None


def prefill(
    model: SlimeForConditionalGeneration, prompt: Prompt, layers: Layers, cached: int, chunk: int
) -> Generator[None, None, Prefilled]:
    """Run the language model over a prompt, and pause between chunks.

    Args:
        model: The model.
        prompt: The prompt.
        layers: Keys and values of its first tokens, or nothing.
        cached: Number of these tokens.
        chunk: Number of tokens of a chunk.
    """
    cache = cache_after(layers)
    length = prompt.embeddings.shape[1]
    copying, hidden, run = prompt.merged.copying, prompt.embeddings, None
    for start in range(cached, length, chunk):
        if start > cached:
            yield
        end = min(start + chunk, length)
        if copying is None:
            hidden = _run(model, prompt, cache, slice(start, end))
        else:
            run = _run_copying(model, prompt, cache, slice(start, end), run)
    found = [(layer.keys, layer.values) for layer in cache.layers]
    if run is None:
        return Prefilled(model.logits_of(hidden[:, -1]).float(), found, AnswerState.of(prompt.merged, None))
    state = AnswerState.of(prompt.merged, run)
    assert state is not None
    pointing = state.local(run.pointing[:, -1])
    logits = state.mixed(model, run.last_hidden_state[:, -1], pointing, run.follows[:, -1])
    return Prefilled(logits, found, state)


def _run(model: SlimeForConditionalGeneration, prompt: Prompt, cache: DynamicCache, part: slice) -> Tensor:
    """Return the last hidden states of a part of a prompt."""
    embeddings = prompt.embeddings
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embeddings[:, part],
        attention_mask=torch.ones(1, part.stop, dtype=torch.long, device=embeddings.device),
        position_ids=prompt.position_ids[:, part],
        use_cache=True,
        **{CACHE: cache},
    ).last_hidden_state
    return hidden


def _run_copying(
    model: SlimeForConditionalGeneration, prompt: Prompt, cache: DynamicCache, part: slice, before: CopyingRun | None
) -> CopyingRun:
    """Run a part of a prompt of a model that copies, after the run of the part before it."""
    network, whole = model.model, prompt.merged.copying
    assert whole is not None
    assert network.copy_output is not None
    assert network.open_vocabulary is not None
    inputs = replace(
        whole,
        embeds=whole.embeds[:, part],
        attention_mask=whole.attention_mask[:, : part.stop],
        position_ids=whole.position_ids[:, part],
        ids=whole.ids[:, part],
        in_answer=whole.in_answer[:, part],
        is_real=whole.is_real[:, part],
        cells=whole.cells[:, : part.stop],
        questions=whole.questions[:, part],
        begins=whole.begins[:, part],
        turn=whole.turn[:, part],
        copying=whole.copying if before is None else before.copying,
    )
    space = network.open_vocabulary.space
    return run_copying(
        network.language_model, model.logits_of, network.copy_output, inputs, cache, space, use_cache=True
    )
