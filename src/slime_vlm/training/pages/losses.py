"""Losses for the objectives of rendered pages, and the training-only heads that some of them need."""

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
    """Return the cross-entropy over all slots. Blank tokens weigh less, and drawings, which are rare, weigh more.

    Args:
        logits: K tensors [..., size_k].
        labels: [..., K] int64.
        blank_weight: Weight of a token that holds nothing.
        drawing_weight: Weight of a token that holds no character but has a role.
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
    """Return the shares of tokens with text whose characters (all slots), offset and words are right."""
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
    """Training-only heads that name the character in every small cell from the encoder's last two feature maps.

    Args:
        dims: Channels of the last two feature maps; the second has half the side of the first.
        characters: Number of characters.
    """

    def __init__(self, dims: tuple[int, int], characters: int) -> None:
        super().__init__()
        self.fine = nn.Linear(dims[0], characters + 1)
        self.coarse = nn.Linear(dims[1], 4 * (characters + 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of all cells in raster order: [V, C, 2h, 2w], [V, C', h, w] -> 2 x [V, 4hw, chars + 1]."""
        views, _, height, width = coarse.shape
        quarters = self.coarse(coarse.permute(0, 2, 3, 1)).reshape(views, height, width, 2, 2, -1)
        return self.fine(fine.permute(0, 2, 3, 1)).flatten(1, 2), quarters.transpose(2, 3).flatten(1, 4)


def cell_loss(logits: Tensor, labels: Tensor, blank_weight: float = 0.1) -> tuple[Tensor, float]:
    """Return the cross-entropy of cells [..., characters + 1], and the share of non-empty cells that are right.

    Empty cells weigh `blank_weight`.
    """
    target = labels.flatten()
    flat = logits.reshape(len(target), -1).float()
    weight = torch.where(target > 0, 1.0, blank_weight)
    loss = (F.cross_entropy(flat, target, reduction="none") * weight).sum() / weight.sum()
    with torch.no_grad():
        right = (flat.argmax(-1) == target)[target > 0].float().mean().item()
    return loss, right


def selector_loss(scores: Tensor, relevant: Tensor, local_mask: Tensor) -> Tensor:
    """Return the divergence between the selector's probabilities and an even spread over the relevant tokens.

    Deviation: not in the paper, whose selection gets no gradient. Maximising the total probability of the relevant
    tokens fails: the key alone, which the question spells, can take all of it, and the value is then dropped.

    Args:
        scores: [B, L, Q] score divided by temperature, of each token for each question.
        relevant: [B, L, Q] bool, tokens of the asked key and its value.
        local_mask: [B, L] bool, real tokens.
    """
    log_probs = scores.float().masked_fill(~local_mask[..., None], -torch.inf).log_softmax(1)
    counts = relevant.sum(1)
    mean = log_probs.masked_fill(~relevant, 0.0).sum(1) / counts.clamp(min=1)
    asked = counts > 0
    # Subtract the entropy of an even spread, so that the optimum is 0.
    return -(mean + counts.clamp(min=1).log())[asked].mean() if asked.any() else scores.sum() * 0.0


def pointing_loss(attentions: Sequence[Tensor], answer_columns: Tensor) -> tuple[Tensor, float]:
    """Return the cross-entropy between attention heads and the image tokens that hold the answer.

    Deviation: not in the paper. Finding the answer is most of the work of a small language model, and the loss on the
    answer alone gives little gradient for it. Half of the heads of the two layers after the middle take part.

    Args:
        attentions: [B, H, S, S] of every layer.
        answer_columns: [B, S] column of the image token that holds this answer token, -1 for none.

    Returns:
        The loss, and the mean attention on the right column.
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
    """Training-only head: names the content of the image token with the answer's next character, and which one is next.

    A small language model soon attends to the right token (see `pointing_loss`), but then often outputs a character
    that is not in it, or the previous one. The loss on the answer alone hardly teaches it to tell the characters of one
    token apart.

    Args:
        dim: Width D of the language model.
        slot_sizes: Sizes of the slots for characters and for the offset.
    """

    def __init__(self, dim: int, slot_sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [*slot_sizes, len(slot_sizes)]
        self.linear = nn.Linear(dim, sum(self.sizes))

    def forward(self, hidden: Tensor, answer_columns: Tensor, ids: Tensor) -> tuple[Tensor, float]:
        """Return the loss, and the share of positions where every slot is right.

        Args:
            hidden: [B, S, D] after the first layer with the pointing loss.
            answer_columns: [B, S], see `merge_packed`.
            ids: [B, S, K] slot ids of the token in every column; slots past those of the head are ignored.
        """
        target = answer_columns[:, 1:]
        asked = target >= 0
        if not asked.any():
            return hidden.sum() * 0.0, 0.0
        held = ids[..., : len(self.sizes) - 1]
        held = held.gather(1, target.clamp(min=0)[..., None].expand(-1, -1, held.shape[-1]))[asked]
        # Characters of the answer that came from this token before: the index of the next one within the token.
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
    """Return a copying head for a model whose visual vocabulary is characters, offset, two words and a role."""
    slime: Any = model.model
    return CopyingHead(model.config.text_config.hidden_size, slime.projector.slot_sizes[:-3])


def copying_loss(
    model: SlimeForConditionalGeneration, outputs: Any, packed: dict[str, Tensor], ids: Sequence[Tensor]
) -> tuple[Tensor, float]:
    """Return the loss and the accuracy of the model's copying head.

    Args:
        model: A model with `copying_head`.
        outputs: Output of the language model, with hidden states.
        packed: Output of `merge_packed`.
        ids: [n, K] slot ids of the image tokens, for every row.
    """
    columns = packed["answer_columns"]
    held = columns.new_zeros(*columns.shape, ids[0].shape[-1])
    for row, tokens in zip(held, ids, strict=True):
        row[HEAD : HEAD + len(tokens)] = tokens
    middle = (len(outputs.hidden_states) - 1) // 2
    head: Any = model.copying_head
    return head(outputs.hidden_states[middle + 1], columns, held)
