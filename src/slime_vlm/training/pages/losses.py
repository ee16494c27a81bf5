"""Losses that the objectives of rendered pages are made of, and the throw-away heads that some of them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.training.pages.packed_questions import HEAD

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration


def slot_loss(logits: list[Tensor], labels: Tensor, blank_weight: float = 0.2, drawing_weight: float = 4.0) -> Tensor:
    """Cross-entropy of every slot, blank tokens counted less and drawings, which are rare, more.

    Args:
        logits: K tensors [..., size_k].
        labels: int64 [..., K].
        blank_weight: weight of a token that holds nothing.
        drawing_weight: weight of a token that holds no character, but has a role.
    """
    flat = labels.reshape(-1, labels.shape[-1])
    weight = torch.where(flat[:, -1] == 0, blank_weight, 1.0)
    weight = torch.where((flat[:, 0] == 0) & (flat[:, -1] > 0), drawing_weight, weight)
    losses = [
        (F.cross_entropy(logit.reshape(-1, logit.shape[-1]).float(), flat[:, k], reduction="none") * weight).sum()
        for k, logit in enumerate(logits)
    ]
    return torch.stack(losses).sum() / weight.sum()


def slot_accuracy(logits: list[Tensor], labels: Tensor) -> dict[str, float]:
    """Share of tokens with text whose characters (all slots), offset and words are named right."""
    with torch.no_grad():
        right = torch.stack([logit.argmax(-1) for logit in logits], -1) == labels
        text = labels[..., -1] > 0
        shown = right[text]
        return {
            "read_characters": shown[:, :-4].all(-1).float().mean().item(),
            "read_offset": shown[:, -4].float().mean().item(),
            "read_words": shown[:, -3:-1].all(-1).float().mean().item(),
            "read_blank": right[~text].all(-1).float().mean().item(),
        }


class ReadingHeads(nn.Module):
    """Throw-away heads that name the character under every small cell, on the encoder's last two maps.

    Args:
        dims: widths of the last two stages, the second at half the side of the first.
        characters: number of characters.
    """

    def __init__(self, dims: tuple[int, int], characters: int) -> None:
        super().__init__()
        self.fine = nn.Linear(dims[0], characters + 1)
        self.coarse = nn.Linear(dims[1], 4 * (characters + 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all cells in raster order: [V, C, 2h, 2w], [V, C', h, w] -> twice [V, 4hw, characters + 1]."""
        views, _, height, width = coarse.shape
        quarters = self.coarse(coarse.permute(0, 2, 3, 1)).reshape(views, height, width, 2, 2, -1)
        return self.fine(fine.permute(0, 2, 3, 1)).flatten(1, 2), quarters.transpose(2, 3).flatten(1, 4)


def cell_loss(logits: Tensor, labels: Tensor, blank_weight: float = 0.1) -> tuple[Tensor, float]:
    """Cross-entropy of cells [..., characters + 1], empty ones counted less, and the share of others named right."""
    target = labels.flatten()
    flat = logits.reshape(len(target), -1).float()
    weight = torch.where(target > 0, 1.0, blank_weight)
    loss = (F.cross_entropy(flat, target, reduction="none") * weight).sum() / weight.sum()
    with torch.no_grad():
        right = (flat.argmax(-1) == target)[target > 0].float().mean().item()
    return loss, right


def selector_loss(scores: Tensor, relevant: Tensor, local_mask: Tensor) -> Tensor:
    """How far the selection's probability is from being spread evenly over the tokens of the asked key and its value.

    Deviation: not in the paper, whose selection gets no gradient. The mass on all of them together is no good aim: the
    key alone, which the question spells, can take it all, and the value is then dropped.

    Args:
        scores: [B, L, n] score over temperature of each token for each question.
        relevant: bool [B, L, n].
        local_mask: bool [B, L], real tokens.
    """
    log_probs = scores.float().masked_fill(~local_mask[..., None], -torch.inf).log_softmax(1)
    counts = relevant.sum(1)
    mean = log_probs.masked_fill(~relevant, 0.0).sum(1) / counts.clamp(min=1)
    asked = counts > 0
    # The entropy of an even spread is taken off, so that 0 is the best.
    return -(mean + counts.clamp(min=1).log())[asked].mean() if asked.any() else scores.sum() * 0.0


def pointing_loss(attentions: Sequence[Tensor], answer_columns: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of some attention heads against the image tokens where an answer is read.

    Deviation: not in the paper. Finding is most of the work of a small language model, and the answer's loss alone says
    little about where to look. Half of the heads of the two layers after the middle take part.

    Args:
        attentions: [B, H, S, S] of every layer.
        answer_columns: [B, S], where the token of this place is read, -1 for none.

    Returns:
        The loss, and the share of the attention that lies where it should.
    """
    middle = len(attentions) // 2
    heads = [attention[:, : attention.shape[1] // 2, :-1].float() for attention in attentions[middle : middle + 2]]
    attention = torch.cat(heads, 1)
    target = answer_columns[:, None, 1:].expand(-1, attention.shape[1], -1)
    asked = target >= 0
    probs = attention.gather(-1, target.clamp(min=0)[..., None])[..., 0][asked]
    if not len(probs):
        return attention.sum() * 0.0, 0.0
    return -probs.clamp(min=1e-6).log().mean(), probs.mean().item()


class CopyingHead(nn.Module):
    """Throw-away head: what the token holds where the answer's next character is read, and which of it is next.

    A small language model soon finds the token (see `pointing_loss`), but then often says a character that is not in
    it, or the one before: the answer's loss alone is a weak lesson in telling five characters of one token apart.

    Args:
        dim: width D of the language model.
        slot_sizes: sizes of the slots for characters and for the offset.
    """

    def __init__(self, dim: int, slot_sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [*slot_sizes, len(slot_sizes)]
        self.linear = nn.Linear(dim, sum(self.sizes))

    def forward(self, hidden: Tensor, answer_columns: Tensor, ids: Tensor) -> tuple[Tensor, float]:
        """Loss, and the share of places where all of it is named right.

        Args:
            hidden: [B, S, D] after the first layer that points.
            answer_columns: [B, S], see `merge_packed`.
            ids: [B, S, K] what the token of every column holds; slots past those of the head are not asked.
        """
        target = answer_columns[:, 1:]
        asked = target >= 0
        if not asked.any():
            return hidden.sum() * 0.0, 0.0
        held = ids[..., : len(self.sizes) - 1]
        held = held.gather(1, target.clamp(min=0)[..., None].expand(-1, -1, held.shape[-1]))[asked]
        # How many characters of the answer came from this token before: the place of the next one in it.
        index = torch.arange(target.shape[1], device=target.device).expand_as(target)
        first = torch.cat([torch.ones_like(asked[:, :1]), target[:, 1:] != target[:, :-1]], 1)
        rank = index - torch.where(first, index, 0).cummax(1).values
        labels = torch.cat([held, rank[asked].clamp(max=self.sizes[-1] - 1)[:, None]], 1)
        logits = self.linear(hidden[:, :-1][asked]).float().split(self.sizes, dim=-1)
        losses = [F.cross_entropy(logit, labels[:, k]) for k, logit in enumerate(logits)]
        with torch.no_grad():
            right = torch.stack([logit.argmax(-1) for logit in logits], -1) == labels
        return torch.stack(losses).mean(), right.all(-1).float().mean().item()


def copying_head(model: SlimeForConditionalGeneration) -> CopyingHead:
    """A copying head for a model whose visual vocabulary is characters, offset, two words and a role."""
    slime: Any = model.model
    return CopyingHead(model.config.text_config.hidden_size, slime.projector.slot_sizes[:-3])


def copying_loss(
    model: SlimeForConditionalGeneration, outputs: Any, packed: dict[str, Tensor], ids: Sequence[Tensor]
) -> tuple[Tensor, float]:
    """Loss of the model's copying head.

    Args:
        model: with `copying_head`.
        outputs: of the language model, with hidden states.
        packed: what `merge_packed` gives.
        ids: [n, K] what the image tokens of every row hold.
    """
    columns = packed["answer_columns"]
    held = columns.new_zeros(*columns.shape, ids[0].shape[-1])
    for row, tokens in zip(held, ids, strict=True):
        row[HEAD : HEAD + len(tokens)] = tokens
    middle = (len(outputs.hidden_states) - 1) // 2
    head: Any = model.copying_head
    return head(outputs.hidden_states[middle + 1], columns, held)
