"""Runs of the language model for the copy output: at once up to an answer, then one token after the other.

What a token of an answer is told depends on where the token before it was copied from. A prompt is one run, as ever,
and so is a step of decoding. Only answers that are given, as in training, take a run for every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from slime_vlm.errors import InputError
from slime_vlm.model.answer_finder import NOWHERE
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.copy_output import CopyOutput
from slime_vlm.model.copying import Copying


@dataclass
class CopyingRun:
    """What a language model gives, and what the copy output needs.

    Attributes:
        last_hidden_state: [B, n, D].
        cache: The cache, or None.
        hidden_states: Of every layer, if requested.
        attentions: Of every layer, if requested.
        pointing: [B, n, S] mean attention of the pointing heads to all tokens, after `CopyOutput.liken`.
        follows: int64 [B, n] character after every token of an answer on the page, 0 for none.
        copying: The state after the last token.
    """

    last_hidden_state: Tensor
    cache: Cache | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    pointing: Tensor
    follows: Tensor
    copying: Copying


@dataclass
class CopyingInputs:
    """New tokens of rows, and all tokens up to them.

    Attributes:
        embeds: [B, n, D] without what answers are told of what follows.
        attention_mask: [B, S] of cached and new tokens.
        position_ids: [B, n].
        ids: int64 [B, n].
        in_answer: bool [B, n] characters of an answer.
        is_real: bool [B, n].
        cells: int64 [B, S] cells of cached and new tokens, -1 for none.
        questions: [B, n, W] what is asked where every token stands.
        copying: The state before them.
        begins: bool [B, n] tokens behind which an answer begins.
        turn: int64 [B, n] number of the question that every token belongs to.
        belief: [B, T, P] what an answer finder adds to the logarithm of how much the cells are pointed at, for every
            question. None for nothing.
        endings: [B, T, P] its log-probabilities that the answers end in the cells. None without one.
        tell_end: What a character is told of that, log-probabilities [B] -> [B, D].
    """

    embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    ids: Tensor
    in_answer: Tensor
    is_real: Tensor
    cells: Tensor
    questions: Tensor
    copying: Copying
    begins: Tensor
    turn: Tensor
    belief: Tensor | None = None
    endings: Tensor | None = None
    tell_end: Callable[[Tensor], Tensor] | None = None

    def begun(self, copying: Copying, new: slice) -> Copying:
        """Return the state of rows after some new tokens, which knows where the answers end that begin among them."""
        begins = self.begins[:, new]
        if self.endings is None or not bool(begins.any()):
            return copying
        index = torch.arange(begins.shape[1], device=begins.device)
        last = (index * begins).amax(dim=1, keepdim=True)
        turn = self.turn[:, new].gather(1, last)
        ends = self.endings.gather(1, turn[..., None].expand(-1, -1, self.endings.shape[2]))[:, 0]
        before = torch.full_like(ends, NOWHERE) if copying.ends is None else copying.ends
        return replace(copying, ends=torch.where(begins.any(dim=1, keepdim=True), ends, before))

    def belief_of(self, new: slice, count: int) -> Tensor | None:
        """Return what is added for some new tokens and the first `count` tokens, [B, n, count], None for nothing."""
        begins = self.begins[:, new]
        if self.belief is None or not bool(begins.any()):
            return None
        cells = self.cells[:, None, :count].clamp(min=0).expand(-1, self.belief.shape[1], -1)
        turn = self.turn[:, new, None].expand(-1, -1, count)
        return self.belief.gather(2, cells).gather(1, turn) * begins[..., None]


def run_copying(
    language_model: Any,
    to_logits: Callable[[Tensor], Tensor],
    output: CopyOutput,
    inputs: CopyingInputs,
    cache: Cache | None,
    space: int,
    **kwargs: Any,
) -> CopyingRun:
    """Run a language model with pointing attention.

    Args:
        language_model: The model.
        to_logits: Its head, hidden states [B, D] -> [B, V].
        output: The copy output.
        inputs: The tokens.
        cache: Its cache, or None.
        space: Id of the space.
        **kwargs: Passed on to the language model.

    Raises:
        InputError: The attention is another one, or what is requested does not go with answers that are given.
    """
    count, cached = inputs.embeds.shape[1], inputs.cells.shape[1] - inputs.embeds.shape[1]
    answers = inputs.in_answer.any(dim=0)
    first = int(answers.long().argmax()) if bool(answers.any()) else count
    in_steps = first < count and count > 1
    wants_cache = kwargs.get("use_cache")
    wants_cache = language_model.config.use_cache if wants_cache is None else wants_cache
    if in_steps:
        if kwargs.get("output_attentions"):
            raise InputError("output_attentions goes with no answer in input_ids in a model that copies; leave it out")
        cache = DynamicCache() if cache is None else cache
        kwargs["use_cache"] = True
    copying, begin = inputs.copying, 0
    runs, pointings, follows = [], [], []
    while begin < count:
        end = max(first, begin + 1)
        embeds, new = inputs.embeds[:, begin:end], slice(begin, end)
        told = inputs.ids.new_zeros(inputs.ids[:, new].shape)
        if begin >= first:
            seen = inputs.cells[:, : cached + begin]
            copying, told[:, 0] = copying.say(
                inputs.ids[:, begin], inputs.in_answer[:, begin], inputs.is_real[:, begin], seen, space
            )
            embeds = embeds + output.told(told)
            if inputs.tell_end is not None:
                embeds = embeds + inputs.tell_end(copying.ending())[:, None]
        pointing: list[Tensor] = []
        mask = inputs.attention_mask[:, : cached + end]
        run = language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=inputs.position_ids[:, new],
            pointing=pointing,
            **{CACHE: cache},
            **kwargs,
        )
        if not pointing or (in_steps and cache is not None and cache.get_seq_length() != cached + end):
            raise InputError(
                "the language model did not tell where its heads look, or kept no cache, which copying needs: do not "
                "change its attention implementation, and do without gradient checkpointing"
            )
        # A cache of fixed size is longer than what it holds.
        looked = pointing[0][..., : cached + end]
        likeness = copying.likeness(inputs.questions[:, new].float(), inputs.cells[:, : cached + end])
        looked = output.liken(looked, *likeness, inputs.belief_of(new, cached + end))
        copying = inputs.begun(copying, new)
        copying = _noted(to_logits, output, inputs, copying, run.last_hidden_state, looked, new, space)
        runs.append(run)
        pointings.append(F.pad(looked, (0, inputs.cells.shape[1] - looked.shape[-1])))
        follows.append(told)
        begin = end
    one = runs[0]
    layers = None if one.hidden_states is None else zip(*(run.hidden_states for run in runs), strict=True)
    return CopyingRun(
        last_hidden_state=torch.cat([run.last_hidden_state for run in runs], dim=1),
        cache=getattr(runs[-1], CACHE) if wants_cache or not in_steps else None,
        hidden_states=None if layers is None else tuple(torch.cat(layer, dim=1) for layer in layers),
        attentions=one.attentions,
        pointing=torch.cat(pointings, dim=1),
        follows=torch.cat(follows, dim=1),
        copying=copying,
    )


@torch.no_grad()
def _noted(
    to_logits: Callable[[Tensor], Tensor],
    output: CopyOutput,
    inputs: CopyingInputs,
    copying: Copying,
    hidden: Tensor,
    looked: Tensor,
    new: slice,
    space: int,
) -> Copying:
    """Note where the last real token of every row points, among the tokens `new` that were run."""
    is_real = inputs.is_real[:, new]
    index = torch.arange(is_real.shape[1], device=is_real.device)
    last = index.masked_fill(~is_real, 0).amax(dim=1)
    rows = torch.arange(len(last), device=last.device)
    hidden = hidden[rows, last]
    logits = to_logits(hidden).float()
    cells = inputs.cells[:, : looked.shape[-1]]
    return copying.pointed(output, hidden, logits, looked[rows, last].float(), is_real.any(dim=1), cells, space)
