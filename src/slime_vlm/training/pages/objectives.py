"""The objectives of stages on rendered pages: `answer`, `read` and `symbolic_tokens`.

Deviation: the paper starts from a pretrained vision encoder and language model. The shipped small model has neither, so
its recipe first trains them apart: the vision encoder names what every token shows (`read`), and the language model
answers from tokens whose content is given as labels (`symbolic_tokens`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.local_compressor import stitch_tiles
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.query_attention import sincos_positions
from slime_vlm.training.pages.labels import UNKNOWN_WORD
from slime_vlm.training.pages.losses import (
    ReadingHeads,
    cell_loss,
    copying_head,
    copying_loss,
    pointing_loss,
    selector_loss,
    slot_accuracy,
    slot_loss,
)
from slime_vlm.training.pages.packed_questions import PackedImage, merge_packed

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

LossAndLogs = tuple[Tensor, dict[str, float]]
"""What an objective returns: the loss, and numbers to log."""


class ReadObjective:
    """Name the content of every token. The parts that the stage trains decide between tiles, patches and global views.

    Args:
        model: Gets training-only heads (`reading_heads`) if its encoder trains; `finish` removes them.
        characters: Number of characters.
        trains: Parts that the stage trains.
    """

    def __init__(self, model: SlimeForConditionalGeneration, characters: int, trains: Sequence[str]) -> None:
        self.encoder, self.local, self.global_view = (
            part in trains for part in ("vision_tower", "local_compressor", "global_adapter")
        )
        if self.encoder:
            sizes = model.config.vision_config.hidden_sizes
            model.reading_heads = ReadingHeads((sizes[-2], sizes[-1]), characters)

    def finish(self, model: SlimeForConditionalGeneration) -> None:
        """Remove the heads from the model."""
        if self.encoder:
            del model.reading_heads

    def __call__(self, model: SlimeForConditionalGeneration, batch: dict[str, Tensor]) -> LossAndLogs:
        """Return the loss and numbers to log."""
        slime: Any = model.model
        is_global = batch["is_global"]
        tiles = self.encoder or self.local
        chosen = (is_global & self.global_view) | (~is_global & tiles)
        pixels, is_global = batch["pixel_values"][chosen], is_global[chosen]
        loss, logs = pixels.new_zeros(()), {}
        if self.encoder:
            maps = slime.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states
            features = maps[-1].flatten(2).transpose(1, 2)
            heads: Any = model.reading_heads
            for name, logits in zip(("fine", "coarse"), heads(maps[-2][~is_global], maps[-1][~is_global]), strict=True):
                part, right = cell_loss(logits, batch["cell_labels"])
                loss, logs[f"cells_{name}"] = loss + 2.0 * part, right
            logits = slime.projector.slot_logits(features)
            loss = loss + 0.3 * slot_loss(logits, batch["patch_labels"][chosen])
        else:
            features = slime.encode_views(pixels)
        if self.local:
            logits = slime.projector.slot_logits(slime.local_compressor(features[~is_global]))
            loss = loss + slot_loss(logits, batch["local_labels"])
            logs |= slot_accuracy(logits, batch["local_labels"])
        if self.global_view:
            logits = slime.projector.slot_logits(slime.global_adapter.query_attention(features[is_global]))
            loss = loss + slot_loss(logits, batch["patch_labels"][batch["is_global"]])
        return loss, logs


class SymbolicTokensObjective:
    """The language-model loss on tokens whose content is given as labels.

    Deviation: not in the paper. In the middle layer, a training-only head names the words that every token belongs to.
    Finding the key beside a value, which the token itself may not name, is the first half of finding an answer.

    Args:
        model: Gets the head if `context_weight` is above 0; `finish` removes it.
        num_words: Size of a word slot.
        selector_weight: Weight of the selector loss.
        context_weight: Weight of the loss of that head.
        pointing_weight: Weight of `pointing_loss`.
        copying_weight: Weight of `copying_loss`; its head is training-only, too.
        word_dropout: Share of words made unknown.
        corruption: Share of character slots blurred.
    """

    # Weight of words that the token itself names: they teach nothing about finding the key.
    KNOWN_WEIGHT = 0.2

    def __init__(
        self,
        model: SlimeForConditionalGeneration,
        num_words: int,
        selector_weight: float,
        context_weight: float,
        pointing_weight: float,
        copying_weight: float = 0.0,
        word_dropout: float = 0.05,
        corruption: float = 0.05,
    ) -> None:
        self.selector_weight, self.context_weight = selector_weight, context_weight
        self.pointing_weight, self.copying_weight = pointing_weight, copying_weight
        self.word_dropout, self.corruption = word_dropout, corruption
        if context_weight:
            model.context_head = nn.Linear(model.config.text_config.hidden_size, 2 * num_words)
        if copying_weight:
            model.copying_head = copying_head(model)

    def finish(self, model: SlimeForConditionalGeneration) -> None:
        """Remove the heads from the model."""
        if self.context_weight:
            del model.context_head
        if self.copying_weight:
            del model.copying_head

    def _tokens(self, projector: Any, ids: Tensor, doubted: Tensor) -> Tensor:
        """Embed slot ids as an imperfect encoder would: some words are unknown, some characters blurred or shifted."""
        words = torch.rand(ids.shape[:-1], device=ids.device) < self.word_dropout
        ids, doubted = ids.clone(), doubted.clone()
        for word_slots in (ids[..., -3:-1], doubted[..., -3:-1]):
            word_slots[words] = torch.where(word_slots[words] > 0, 1, word_slots[words])
        doubt = torch.rand(ids.shape, device=ids.device) < self.corruption
        doubt[..., -4:] = False
        other = torch.where(doubt & (ids > 0), torch.randint_like(ids, 1, 60), ids)
        share, shifted = torch.rand((2, *ids.shape[:-1], 1), device=ids.device)
        right = projector.embed_ids(ids)
        blurred = 0.5 * share * (projector.embed_ids(other) - right)
        return right + blurred + shifted * (projector.embed_ids(doubted) - right)

    def __call__(self, model: SlimeForConditionalGeneration, batch: dict[str, Tensor]) -> LossAndLogs:
        """Return the loss and numbers to log."""
        slime: Any = model.model
        local = self._tokens(slime.projector, batch["slot_ids"], batch["doubted_ids"])
        text = model.get_input_embeddings()(batch["input_ids"])
        logs: dict[str, float] = {}
        aux = text.new_zeros((), dtype=torch.float32)
        questions = batch["relevant"].shape[-1]
        if self.selector_weight:
            scores = question_scores(model, local, text, batch)
            aux = selector_loss(scores, batch["relevant"], batch["local_mask"])
            logs["selector_loss"] = aux.item()
        if slime.page_positions is not None:
            rows, cols = batch["coordinates"].reshape(-1, 2).unbind(1)
            code = sincos_positions(rows, cols, local.shape[-1])
            local = local + slime.page_positions.linear(code.reshape(local.shape))
        kept = batch["kept"]
        images = [
            PackedImage(tokens[k], indices[k], int(n), int(n), k.new_ones(int(k.sum()), questions))
            for tokens, indices, k, n in zip(local, batch["token_indices"], kept, batch["length"], strict=True)
        ]
        packed = merge_packed(text, batch, images)
        states = self.context_weight > 0 or self.copying_weight > 0
        outputs = run_packed(model, packed, states, self.pointing_weight > 0)
        loss, answer_logs = answer_loss(model, outputs.last_hidden_state, packed["labels"])
        loss = loss + self.selector_weight * aux
        if self.pointing_weight:
            aux, logs["pointing"] = pointing_loss(outputs.attentions, packed["answer_columns"])
            loss = loss + self.pointing_weight * aux
        if self.copying_weight:
            ids = [tokens[k] for tokens, k in zip(batch["slot_ids"], kept, strict=True)]
            aux, logs["copying"] = copying_loss(model, outputs, packed, ids)
            loss = loss + self.copying_weight * aux
        if self.context_weight:
            middle = outputs.hidden_states[len(outputs.hidden_states) // 2][packed["is_image"]]
            known, words = batch["words_known"][kept], batch["words"][kept]
            head: Any = model.context_head
            logits = head(middle[known]).float().unflatten(-1, (2, -1)).flatten(0, 1)
            words = words[known].flatten()
            hidden = (batch["slot_ids"][kept][known][:, -3:-1] == UNKNOWN_WORD).flatten()
            weight = torch.where(hidden, 1.0, self.KNOWN_WEIGHT)
            losses = F.cross_entropy(logits, words, reduction="none") * weight
            loss = loss + self.context_weight * losses.sum() / weight.sum().clamp(min=1.0)
            with torch.no_grad():
                asked = hidden if hidden.any() else words > 0
                logs["context"] = (logits.argmax(-1) == words)[asked].float().mean().item()
        return loss, {**logs, **answer_logs}


class AnswerObjective:
    """The language-model loss on rendered pages, with auxiliary losses.

    Deviation: not in the paper. All local tokens of the asked keys and values stay, whatever the selector decides. A
    row whose answer was dropped would teach the model to invent one.

    Args:
        model: Gets a copying head if `copying_weight` is above 0; `finish` removes it.
        selector_weight: Weight of the selector loss.
        reading_weight: Weight of the reading loss of local tokens.
        pointing_weight: Weight of `pointing_loss`.
        copying_weight: Weight of `copying_loss`.
        global_reading_weight: Weight of the reading loss of global tokens.
    """

    def __init__(
        self,
        model: SlimeForConditionalGeneration,
        selector_weight: float,
        reading_weight: float,
        pointing_weight: float,
        copying_weight: float = 0.0,
        global_reading_weight: float = 0.0,
    ) -> None:
        self.selector_weight, self.reading_weight = selector_weight, reading_weight
        self.pointing_weight, self.copying_weight = pointing_weight, copying_weight
        self.global_reading_weight = global_reading_weight
        if copying_weight:
            model.copying_head = copying_head(model)

    def finish(self, model: SlimeForConditionalGeneration) -> None:
        """Remove the head from the model."""
        if self.copying_weight:
            del model.copying_head

    def __call__(self, model: SlimeForConditionalGeneration, batch: dict[str, Tensor]) -> LossAndLogs:
        """Return the loss and numbers to log."""
        slime: Any = model.model
        is_global, views = batch["is_global"], model.config.views
        wanted = {"global": is_global, "local": ~is_global, "both": torch.ones_like(is_global)}[views]
        features, is_global = slime.encode_views(batch["pixel_values"][wanted]), is_global[wanted]
        global_tokens = [] if views == "local" else slime.adapt_global(features[is_global])[0].unbind()
        text = model.get_input_embeddings()(batch["input_ids"])
        if views == "global":
            images, held, aux, logs = self._global_images(model, global_tokens, batch)
        else:
            images, held, aux, logs = self._images(model, features[~is_global], global_tokens, text, batch)
        if self.global_reading_weight and views != "local":
            read, logs["global_reading_loss"] = self._global_reading(model, features[is_global], batch["global_labels"])
            aux = aux + self.global_reading_weight * read
        packed = merge_packed(text, batch, images)
        outputs = run_packed(model, packed, self.copying_weight > 0, self.pointing_weight > 0)
        loss, answer_logs = answer_loss(model, outputs.last_hidden_state, packed["labels"])
        loss, logs = loss + aux, {**logs, **answer_logs}
        if self.pointing_weight:
            aux, logs["pointing"] = pointing_loss(outputs.attentions, packed["answer_columns"])
            loss = loss + self.pointing_weight * aux
        if self.copying_weight:
            aux, logs["copying"] = copying_loss(model, outputs, packed, held)
            loss = loss + self.copying_weight * aux
        return loss, logs

    def _images(
        self,
        model: SlimeForConditionalGeneration,
        features: Tensor,
        global_tokens: Sequence[Tensor],
        text: Tensor,
        batch: dict[str, Tensor],
    ) -> tuple[list[PackedImage], list[Tensor], Tensor, dict[str, float]]:
        """Return the images after selection, the slot ids of their tokens, auxiliary losses and numbers to log."""
        slime: Any = model.model
        logits = slime.projector.slot_logits(slime.local_compressor(features))
        grids = [(int(rows), int(cols)) for rows, cols in batch["image_grids"].tolist()]
        tiles = slime.projector.embed_probs([logit.softmax(-1) for logit in logits])
        local = [
            stitch_tiles(tokens, *grid, model.config.local_merge)
            for tokens, grid in zip(tiles.split([rows * cols for rows, cols in grids]), grids, strict=True)
        ]
        wholes: Sequence[Tensor | None] = global_tokens or [None] * len(grids)
        pages = [
            VisionTokens(grid=grid, global_tokens=whole, local_tokens=tokens)
            for grid, whole, tokens in zip(grids, wholes, local, strict=True)
        ]
        lengths = torch.tensor([len(tokens) for tokens in local], device=text.device)
        stacked = pad_sequence(local, batch_first=True)
        scores, kept = select_packed(model, stacked, lengths, text, batch)
        kept = kept | batch["relevant"]
        labels = batch["local_labels"].split([rows * cols for rows, cols in grids])
        images, held = [], []
        blocks = slime.image_blocks(pages)
        for tokens, block, seen, length, ids in zip(pages, blocks, kept, lengths.tolist(), labels, strict=True):
            before = len(block) - length
            seen = torch.cat([seen.new_ones(before, seen.shape[1]), seen[:length]])
            indices = seen.any(1).nonzero()[:, 0]
            ids = stitch_tiles(ids, *tokens.grid, model.config.local_merge)
            held.append(torch.cat([ids.new_zeros(before, ids.shape[1]), ids])[indices])
            images.append(PackedImage(block[indices], indices, len(block), length, seen[indices]))
        mask = torch.arange(stacked.shape[1], device=text.device) < lengths[:, None]
        logs = {"kept": kept.any(-1)[mask].float().mean().item()}
        loss = text.new_zeros((), dtype=torch.float32)
        if self.selector_weight:
            aux = selector_loss(scores, batch["relevant"], mask)
            loss, logs["selector_loss"] = loss + self.selector_weight * aux, aux.item()
        if self.reading_weight:
            aux = slot_loss(logits, batch["local_labels"])
            loss, logs["reading_loss"] = loss + self.reading_weight * aux, aux.item()
            logs |= slot_accuracy(logits, batch["local_labels"])
        return images, held, loss, logs

    def _global_images(
        self, model: SlimeForConditionalGeneration, global_tokens: Sequence[Tensor], batch: dict[str, Tensor]
    ) -> tuple[list[PackedImage], list[Tensor], Tensor, dict[str, float]]:
        """Return images of the global view alone, all of which every question attends to."""
        images, held = [], []
        pages = [VisionTokens(grid=(1, 1), global_tokens=tokens, local_tokens=None) for tokens in global_tokens]
        for block in model.model.image_blocks(pages):
            indices = torch.arange(len(block), device=block.device)
            every = torch.ones(len(block), batch["relevant"].shape[-1], dtype=torch.bool, device=block.device)
            images.append(PackedImage(block, indices, len(block), 0, every))
            held.append(indices.new_zeros(len(block), batch["local_labels"].shape[-1]))
        return images, held, global_tokens[0].new_zeros((), dtype=torch.float32), {}

    @staticmethod
    def _global_reading(model: SlimeForConditionalGeneration, features: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Return the reading loss of the adapters that the gate enables, on global views."""
        slime: Any = model.model
        gate = model.config.gate
        read = [features] if gate != "attention" else []
        if gate != "mlp":
            read.append(slime.global_adapter.query_attention(features))
        loss = torch.stack([slot_loss(slime.projector.slot_logits(part), labels) for part in read]).mean()
        return loss, loss.item()


def question_scores(
    model: SlimeForConditionalGeneration, local: Tensor, text: Tensor, batch: dict[str, Tensor]
) -> Tensor:
    """Return the cosine score of every local token for every question of its row, over temperature (section 3.3).

    Args:
        model: Gives the selector's temperature.
        local: [B, L, D].
        text: [B, S, D] text embeddings.
        batch: `question_of` and `question_mask` [B, S], `relevant` [B, L, Q].

    Returns:
        [B, L, Q].
    """
    asking = batch["question_of"] * batch["question_mask"]
    member = F.one_hot(asking, batch["relevant"].shape[-1] + 1)[..., 1:].to(text.dtype)
    wanted = member.transpose(1, 2) @ F.normalize(text, dim=-1)
    return F.normalize(local, dim=-1) @ wanted.transpose(1, 2) / model.config.selector_temperature


def select_packed(
    model: SlimeForConditionalGeneration, local: Tensor, lengths: Tensor, text: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Run the model's own selection for every question of packed rows.

    Args:
        model: The model.
        local: [B, L, D], padded.
        lengths: [B] real tokens of each row.
        text: [B, S, D] text embeddings.
        batch: `question_of` and `question_mask` [B, S], `relevant` [B, L, Q].

    Returns:
        Scores over temperature, and the kept tokens, none for a question that a row does not have. Both [B, L, Q].
    """
    config, count = model.config, batch["relevant"].shape[-1]
    asking = batch["question_of"] * batch["question_mask"]
    masks = torch.stack([asking == q + 1 for q in range(count)], 1)
    selector: Any = model.model.selector
    selection = selector(
        local.repeat_interleave(count, 0),
        text.repeat_interleave(count, 0),
        masks.flatten(0, 1),
        lengths.repeat_interleave(count),
        temperature=config.selector_temperature,
        noise_std=config.selector_noise,
        top_p=config.selector_top_p,
        max_tokens=config.max_local_tokens,
    )

    def by_row(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, count)).transpose(1, 2)

    return by_row(selection.scores) / config.selector_temperature, by_row(selection.kept) & masks.any(-1)[:, None]


def run_packed(
    model: SlimeForConditionalGeneration, packed: dict[str, Tensor], hidden_states: bool, attentions: bool
) -> Any:
    """Run the language model on the output of `merge_packed`."""
    inputs = {key: packed[key] for key in ("inputs_embeds", "attention_mask", "position_ids")}
    options = {"output_hidden_states": hidden_states, "output_attentions": attentions, "use_cache": False}
    return model.model.language_model(**inputs, **options)


def answer_loss(model: SlimeForConditionalGeneration, hidden: Tensor, labels: Tensor) -> LossAndLogs:
    """Return the cross-entropy over answer tokens, and numbers to log. Logits are computed for these tokens only."""
    target = labels[:, 1:]
    asked = target != IGNORED_LABEL
    logits = model.lm_head(hidden[:, :-1][asked]).float()
    loss = F.cross_entropy(logits, target[asked])
    with torch.no_grad():
        right = (logits.argmax(-1) == target[asked]).float().mean().item()
    return loss, {"answer_tokens_right": right}
