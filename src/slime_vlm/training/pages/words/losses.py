"""Losses of the language side of a page model with an open vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slime_vlm.training.pages.losses import pointing_loss, selector_loss
from slime_vlm.training.pages.words.answerer import Answers, PageAnswerer, PageLook, answers_begin
from slime_vlm.training.pages.words.batch import WordBatch

_SHARPNESS = 15.0


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses beside that of the answer.

    Attributes:
        pointing: See `pointing_loss`.
        copying: See `CopyingHead`.
        selector: See `selector_loss`.
        contrast: See `contrast_loss`.
        context: The same for a hidden state of the language model.
        first: Weight of the first token of an answer; the others have 1. It says where the answer is, or that there is
            none. The others mostly follow it.
        finding: See `finding_loss`.
        ending: The same for where answers end.
    """

    pointing: float = 0.5
    copying: float = 0.4
    selector: float = 0.3
    contrast: float = 0.3
    context: float = 0.3
    first: float = 4.0
    finding: float = 1.0
    ending: float = 0.5


def contrast_loss(told: Tensor, keys: Tensor, fact: Tensor) -> tuple[Tensor, float]:
    """Tell the key of a cell among all keys of the batch: the loss, and the share that is right.

    Args:
        told: [T, W] unit vectors of cells of keys and values.
        keys: [F, W] unit vectors of keys.
        fact: int64 [T] fact of every cell. A key that two facts share counts for either.
    """
    logits = told @ keys.T * _SHARPNESS
    with torch.no_grad():
        # A key without a word, such as "%", is like itself alone.
        alike = (keys @ keys.T > 0.999) | torch.eye(len(keys), dtype=torch.bool, device=keys.device)
        right = alike[fact, logits.argmax(dim=-1)].float().mean().item()
    mine = logits.masked_fill(~alike[fact], -torch.inf).logsumexp(dim=-1)
    return (logits.logsumexp(dim=-1) - mine).mean(), right


def word_losses(
    model: PageAnswerer, batch: WordBatch, answers: Answers, weights: LossWeights
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss and numbers to log."""
    begins = answers_begin(answers.label_row, answers.label_question)
    weight = torch.where(begins, weights.first, 1.0)
    loss = (F.nll_loss(answers.log_probs, answers.labels, reduction="none") * weight).sum() / weight.sum()
    right = (answers.log_probs.argmax(dim=-1) == answers.labels).float().mean().item()
    first = (answers.log_probs.argmax(dim=-1) == answers.labels)[begins].float().mean().item()
    logs = {"answer": loss.item(), "right": right, "first": first}
    if weights.pointing:
        part, logs["pointing"] = pointing_loss(answers.attentions, answers.packed["answer_columns"])
        loss = loss + weights.pointing * part
    if weights.copying:
        middle = len(answers.attentions) // 2
        hidden = answers.hidden_states[middle + 1]
        part, logs["copying"] = model.copying_head(hidden, answers.packed["answer_columns"], answers.held)
        loss = loss + weights.copying * part
    part, more, keys = look_losses(model, batch, answers.look, weights)
    loss, logs = loss + part, logs | more
    if weights.context and len(batch.told):
        part, logs["context"] = _context(model, batch, answers, keys)
        loss = loss + weights.context * part
    return loss, logs | {"loss": loss.item()}


def finding_loss(beginnings: Tensor, begins: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return how surprising the beginnings of answers are to the answer finder, and numbers to log.

    Args:
        beginnings: [B, Q, N + 1] its log-probabilities.
        begins: int64 [B, Q] the cell, N where there is no answer, -1 where none can be told.
    """
    known = begins >= 0
    log_probs, target = beginnings[known], begins[known]
    if not len(target):
        return beginnings.sum() * 0.0, {}
    none = target == beginnings.shape[-1] - 1
    right = (log_probs.argmax(dim=-1) == target).float()
    parts = {"found": right[~none], "none": right[none]}
    return F.nll_loss(log_probs, target), {name: part.mean().item() for name, part in parts.items() if len(part)}


def finding_losses(batch: WordBatch, look: PageLook, weights: LossWeights) -> tuple[Tensor, dict[str, float]]:
    """Return the losses of the answer finder, and numbers to log. Without one they are 0."""
    if look.beginnings is None or look.endings is None:
        return look.cosines.new_zeros(()), {}
    part, logs = finding_loss(look.beginnings, batch.begins)
    loss = weights.finding * part
    known = batch.ends >= 0
    log_probs, target = look.endings[known], batch.ends[known]
    if len(target):
        loss = loss + weights.ending * F.nll_loss(log_probs, target)
        logs = logs | {"ended": (log_probs.argmax(dim=-1) == target).float().mean().item()}
    return loss, logs


def look_losses(
    model: PageAnswerer, batch: WordBatch, look: PageLook, weights: LossWeights
) -> tuple[Tensor, dict[str, float], Tensor]:
    """Return the losses of what comes before the language model, numbers to log, and the vectors of all keys [F, W]."""
    scores = (look.cosines * model.log_scale.exp().clamp(max=40)).transpose(1, 2)
    part = selector_loss(scores, (batch.key | batch.value).transpose(1, 2), look.shown)
    loss, logs = weights.selector * part, {"selector": part.item()}
    words = model.open_vocabulary.word_embedding(batch.fact_words)
    count = max((int(numbers.max()) + 1 for numbers in (batch.told[:, 2], batch.fact_of) if len(numbers)), default=0)
    keys = F.normalize(words.new_zeros(count, words.shape[1]).index_add(0, batch.fact_of, words), dim=-1)
    part, found = finding_losses(batch, look, weights)
    loss, logs = loss + part, logs | found
    if weights.contrast and len(batch.told):
        page, cell, fact = batch.told.unbind(1)
        part, logs["linked"] = contrast_loss(look.linked[page, cell], keys, fact)
        loss = loss + weights.contrast * part
    return loss, logs, keys


def _context(model: PageAnswerer, batch: WordBatch, answers: Answers, keys: Tensor) -> tuple[Tensor, float]:
    """The contrast for the language model's hidden states before the pointing heads."""
    page, cell, fact = batch.told.unbind(1)
    kept = answers.kept
    read = kept[page, cell]
    # Columns of a page's kept cells follow the head in the order of the page.
    first = answers.packed["is_image"].long().argmax(dim=1)
    column = first[page] + kept.long().cumsum(dim=1)[page, cell] - 1
    hidden = answers.hidden_states[len(answers.attentions) // 2][page[read], column[read]]
    return contrast_loss(F.normalize(model.context_head(hidden), dim=-1), keys, fact[read])
