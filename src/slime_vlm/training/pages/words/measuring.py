"""What the language side of a page model can do, measured on pages in cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from slime_vlm.training.pages.words.answerer import PageAnswerer, PageLook
from slime_vlm.training.pages.words.batch import NOT_THERE, WordBatch, make_batch
from slime_vlm.training.pages.words.cells import PageCells

SELECTED = 128
"""Tokens among which the selector's recall is measured."""


@torch.inference_mode()
def measure(
    model: PageAnswerer, pages: Sequence[PageCells], budget: int | None = None, batch_size: int = 4
) -> dict[str, float]:
    """Ask all questions.

    An answer counts when every token of it and its end are the most probable ones behind the true ones before them, and
    when every character that does not follow the one before is copied from where it stands: then greedy decoding gives
    exactly this answer.

    Args:
        model: The model.
        pages: The pages.
        budget: See `PageAnswerer.forward`.
        batch_size: Pages at once.

    Returns:
        "exact" of what is stated, and the same for every family of questions; "absent_refused" and "present_refused";
        "selected", the share of questions whose asked key and value are among the selector's best `SELECTED` tokens;
        "tokens" that a page shows on average.
    """
    model.eval()
    counts: dict[str, list[float]] = defaultdict(list)
    for begin in range(0, len(pages), batch_size):
        part = pages[begin : begin + batch_size]
        batch = make_batch(part, model.settings.buckets)
        answers = model(batch, budget)
        predicted = answers.log_probs.argmax(dim=-1)
        fits = (predicted == answers.labels) & answers.found
        most = batch.asked.shape[1]
        question = answers.label_row * most + answers.label_question - 1
        wrong = torch.zeros(batch.asked.numel(), dtype=torch.long).index_add_(0, question, (~fits).long())
        first = torch.ones_like(fits)
        first[1:] = question[1:] != question[:-1]
        refused = torch.zeros(batch.asked.numel(), dtype=torch.bool)
        refused[question[first]] = predicted[first] == NOT_THERE
        found = _selected(batch, answers.look)
        for row, page in enumerate(part):
            counts["tokens"].append(float(page.shown.sum()))
            for number, asked in enumerate(page.asked):
                index = row * most + number
                if asked.absent:
                    counts["absent_refused"].append(float(refused[index]))
                    continue
                exact = float(wrong[index] == 0)
                counts["exact"].append(exact)
                counts[f"exact_{asked.question.family}"].append(exact)
                counts["present_refused"].append(float(refused[index]))
                if len(asked.key) and (asked.cells >= 0).any():
                    counts["selected"].append(float(found[row, number]))
    model.train()
    return {name: round(sum(values) / len(values), 3) for name, values in sorted(counts.items())}


def _selected(batch: WordBatch, look: PageLook) -> Tensor:
    """Whether all cells of key and value are among the best, bool [B, Q]."""
    cosines = look.cosines.masked_fill(~look.shown[:, None], -2.0)
    best = cosines.topk(min(SELECTED, cosines.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(batch.key).scatter(-1, best, True)
    return ~((batch.key | batch.value) & ~chosen).any(dim=-1)
