"""The SliME model without its head: selects, merges and runs the language model (paper sections 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from slime_vlm.errors import InputError
from slime_vlm.model.cached_rows import (
    UNKNOWN_TOKEN,
    CachedRows,
    attach_record,
    record_of,
    rows_of,
    rows_of_text,
)
from slime_vlm.model.collectives import num_processes
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import SlimeModelOutput, VisionTokens
from slime_vlm.model.packed_attention import PACKED_ATTENTION
from slime_vlm.model.question_selector import Selection
from slime_vlm.model.slime_vision import SlimeVision
from slime_vlm.model.token_merging import (
    MergedRows,
    after_beginning,
    check_vision_tokens,
    fill_placeholders,
    image_rows,
    merge_rows,
    pack_rows,
    padding_side_of,
)


class SlimeModel(SlimeVision):
    """SliME without its language modelling head."""

    def __init__(self, config: SlimeConfig) -> None:
        super().__init__(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

    # Images ------------------------------------------------------------------------------------------------------

    def get_image_features(
        self, pixel_values: Tensor, image_grids: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Features of every image as they enter the sequence when no local token is dropped.

        Returns:
            An output whose `pooler_output` is a list with one [n, D] tensor per image.
        """
        vision_tokens = self.encode_images(pixel_values, image_grids)
        return BaseModelOutputWithPooling(pooler_output=self._image_blocks(vision_tokens))

    def page_position_embeddings(self, rows: int, cols: int, kept: Tensor | None = None) -> Tensor:
        """Position of every local token of a rows x cols grid of tiles, [L, D] in the order of merging.

        Args:
            rows: Tiles from top to bottom.
            cols: Tiles from left to right.
            kept: [L] bool, to have the positions of these tokens only.

        Raises:
            InputError: The model has no page positions.
        """
        if self.page_positions is None:
            raise InputError("this model has no page positions, set page_positions=True in its config")
        return self.page_positions(rows, cols, self.config.token_layout.tile_side, self.config.local_merge, kept)

    def _image_blocks(
        self, vision_tokens: Sequence[VisionTokens], kept: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Tokens of every image in the order of the sequence: global, separator, kept local ones [L] (section 3.4)."""
        separators: list[Tensor] = []
        if self.config.token_layout.num_separators:
            # Looked up once, however many images there are: every process has to use the embeddings as often.
            separator = torch.tensor([self.config.separator_token_id], device=self.language_model.device)
            separators = [self.get_input_embeddings()(separator)]
        masks: Sequence[Tensor | None] = kept or [None] * len(vision_tokens)
        return [self._image_block(*pair, separators) for pair in zip(vision_tokens, masks, strict=True)]

    def _image_block(self, tokens: VisionTokens, kept: Tensor | None, separators: list[Tensor]) -> Tensor:
        parts = [] if tokens.global_tokens is None else [tokens.global_tokens]
        parts += separators
        if tokens.local_tokens is not None:
            local = tokens.local_tokens
            kept = None if kept is None else kept.to(local.device)
            local = local if kept is None else local[kept]
            if self.page_positions is not None:
                local = local + self.page_position_embeddings(*tokens.grid, kept).to(local)
            parts.append(local)
        return torch.cat([part.to(parts[0]) for part in parts])

    def _trains_with_others(self) -> bool:
        """Whether the parts that see are needed in a batch without an image: all processes use the same parts."""
        if not self.training:
            return False
        parts = [part for name, part in self.named_children() if name != "language_model"]
        return num_processes() > 1 or any(p.requires_grad for part in parts for p in part.parameters())

    def _nothing_seen(self) -> Tensor:
        """Zero, computed from a blank image of one tile, so that its gradients are zeros and none is missing."""
        blank = self._blank_views(2)
        tokens = self.encode_image(blank, (1, 1))
        if self.selector is not None and self.config.views != "global":
            # It gets no gradient, but its weights and the embeddings' may be spread over the processes.
            ids = torch.tensor([[self.config.separator_token_id]], device=blank.device)
            self._select([tokens], ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids[0]))
        # The product comes first: a sum of many tokens may be too large for 16 bits.
        return (self._image_blocks([tokens])[0] * 0.0).sum()

    # Text --------------------------------------------------------------------------------------------------------

    def embed_text(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, D] of token ids [B, S], and the mask [B, S] of image placeholders among them."""
        placeholders = input_ids == self.config.image_token_id
        # The placeholder's id may lie outside the vocabulary; its embedding is replaced anyway.
        return self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0)), placeholders

    def _selector_text_mask(self, visible: Tensor, labels: Tensor | None, question_mask: Tensor | None) -> Tensor:
        if self.config.selector_text == "question":
            if question_mask is None:
                raise InputError(
                    "question_mask is missing, expected the processor's mask of question tokens: pass it, or set "
                    "selector_text='prompt'"
                )
            return visible & question_mask.to(visible.device).bool()
        if self.config.selector_text == "prompt" and labels is not None:
            # Deviation: the published training lets the selector read the answer, which inference cannot do.
            return visible & (labels == IGNORED_LABEL)
        return visible

    def _select(
        self, vision_tokens: Sequence[VisionTokens], input_ids: Tensor, text_mask: Tensor, rows: Tensor
    ) -> Selection:
        assert self.selector is not None
        # Columns without any selector text (image placeholders above all) would only cost memory.
        columns = text_mask.any(dim=0)
        text = self.embed_text(input_ids[:, columns])[0]
        local_tokens = [tokens.local_tokens.to(text) for tokens in vision_tokens if tokens.local_tokens is not None]
        return self.selector(
            pad_sequence(local_tokens, batch_first=True) if len(local_tokens) > 1 else local_tokens[0][None],
            text[rows],
            text_mask[:, columns][rows],
            torch.tensor([len(tokens) for tokens in local_tokens], device=text.device),
            temperature=self.config.selector_temperature,
            noise_std=self.config.selector_noise,
            top_p=self.config.selector_top_p,
            max_tokens=self.config.max_local_tokens,
        )

    def select(
        self,
        vision_tokens: Sequence[VisionTokens],
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        question_mask: Tensor | None = None,
    ) -> Selection | None:
        """Select local tokens for a prompt without running the language model (section 3.3).

        Args:
            vision_tokens: Tokens of every image of the batch, see `encode_images`.
            input_ids: [B, S] with the placeholders of these images.
            attention_mask: [B, S].
            labels: [B, S]; tokens with a label are answers.
            question_mask: [B, S] 1 on the tokens of the question.

        Returns:
            Scores, probabilities and kept tokens of every image, or None when the model selects nothing (local tokens
            left out, or no selector).

        Raises:
            InputError: The images' tokens do not fit the placeholders or this model.
        """
        if self.selector is None or self.config.views == "global":
            return None
        placeholders = input_ids == self.config.image_token_id
        check_vision_tokens(vision_tokens, self.config.token_layout)
        rows = image_rows(placeholders, self._placeholder_counts(vision_tokens, input_ids.device))
        visible = ~placeholders if attention_mask is None else ~placeholders & (attention_mask != 0)
        return self._select(vision_tokens, input_ids, self._selector_text_mask(visible, labels, question_mask), rows)

    def _placeholder_counts(self, vision_tokens: Sequence[VisionTokens], device: torch.device) -> Tensor:
        layout = self.config.token_layout
        return torch.tensor([layout.num_image_tokens(*tokens.grid) for tokens in vision_tokens], device=device)

    def _merge(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        vision_tokens: Sequence[VisionTokens],
        kept_local_tokens: Sequence[Tensor] | None,
        labels: Tensor | None,
        question_mask: Tensor | None,
        position_ids: Tensor | None,
        padding_side: str | None,
    ) -> tuple[Tensor, MergedRows, dict[str, Any]]:
        """Select, merge and embed the rows: embeddings [B, S, D], zero in padding, and what they were made of."""
        placeholders = input_ids == self.config.image_token_id
        layout = self.config.token_layout
        check_vision_tokens(vision_tokens, layout, kept_local_tokens)
        kept = torch.ones_like(placeholders)
        seen: dict[str, Any] = {}
        counts = self._placeholder_counts(vision_tokens, input_ids.device)
        rows = image_rows(placeholders, counts) if vision_tokens or placeholders.any() else counts
        if vision_tokens:
            seen["vision_tokens"] = tuple(vision_tokens)
            if vision_tokens[0].gates is not None:
                seen["adapter_weights"] = tuple(tokens.gates for tokens in vision_tokens)
            if kept_local_tokens is None and self.selector is not None and self.config.views != "global":
                visible = ~placeholders & (attention_mask != 0)
                text_mask = self._selector_text_mask(visible, labels, question_mask)
                selection = self._select(vision_tokens, input_ids, text_mask, rows)
                spans = [tokens.num_local_tokens for tokens in vision_tokens]
                seen["selection_scores"] = tuple(s[:n] for s, n in zip(selection.scores, spans, strict=True))
                seen["selection_probs"] = tuple(p[:n] for p, n in zip(selection.probs, spans, strict=True))
                kept_local_tokens = tuple(k[:n] for k, n in zip(selection.kept, spans, strict=True))
            if kept_local_tokens is not None:
                seen["kept_local_tokens"] = tuple(kept_local_tokens)
                always = torch.ones(
                    layout.num_global_tokens + layout.num_separators, dtype=torch.bool, device=kept.device
                )
                marks = [part for mask in kept_local_tokens for part in (always, mask.to(kept.device))]
                kept = kept.masked_scatter(placeholders, torch.cat(marks))
        merged = merge_rows(
            input_ids,
            attention_mask,
            kept,
            padding_side=padding_side or padding_side_of(attention_mask),
            labels=None if labels is None else labels.masked_fill(placeholders, IGNORED_LABEL),
            position_ids=position_ids,
            keep_position_ids=self.config.keep_position_ids,
            max_length=self.config.max_sequence_length,
        )
        # Before the text, as in a batch without an image: processes have to use parts in the same order, too.
        features = torch.cat(self._image_blocks(vision_tokens, kept_local_tokens)) if vision_tokens else None
        embeddings = self.embed_text(merged.input_ids)[0]
        if features is not None:
            # Number of its feature at every placeholder that is still there; cutting rows may have removed some.
            numbers = (placeholders & kept).flatten().cumsum(0).view_as(kept) - 1
            filled = placeholders.gather(1, merged.token_index.clamp(min=0)) & (merged.token_index >= 0)
            wanted = numbers.gather(1, merged.token_index.clamp(min=0))[filled]
            embeddings = fill_placeholders(embeddings, filled, features[wanted])
        return embeddings * merged.attention_mask[..., None], merged, seen

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
        pack: bool = False,
        **kwargs: Any,
    ) -> SlimeModelOutput:
        """Run the model on a batch that may mix images of any size and rows of text alone.

        The steps are:
            1. Check the arguments against each other.
            2. Encode the images, unless `vision_tokens` brings their tokens.
            3. Select local tokens, drop the others and merge images and text into rows (`_merge`).
            4. Continue a filled cache: its record knows the positions and the mask of what it holds (`cached_rows`).
            5. Pack the rows end to end, if asked.
            6. Run the language model.
            7. Record on the cache what it holds now.

        Args:
            input_ids: [B, S] with one placeholder per image token before selection, images in the order of rows.
            attention_mask: [B, S] 1 on real tokens; all are real when it is left out. For text alone also what the
                language model takes, a mask of pairs [B, 1, S, S].
            position_ids: [B, S] positions of the tokens of `input_ids`, or of the merged rows when they are shorter;
                counted over real tokens when left out. With a filled cache and images, counting goes on from the first.
            past_key_values: Cache of the language model. When it is filled, `input_ids` (with images or without) are
                the tokens that follow. `attention_mask` may then cover the new tokens, the cached and the new ones, or
                all tokens before selection. When `attention_mask` is as long as `input_ids` and images come along,
                these are a whole prompt, a single row, and the cache holds the first tokens of it, of which merging
                drops none; the output is that of the tokens behind them.
            inputs_embeds: [B, S, D] in place of `input_ids`, for text alone.
            pixel_values: [V, 3, H, W] views of all images.
            image_grids: [I, 2] (rows, columns) of every image.
            question_mask: [B, S] 1 on question tokens, for selector_text "question".
            labels: [B, S] token ids to predict, -100 elsewhere.
            vision_tokens: Tokens of every image in place of its pixels, see `encode_images`.
            kept_local_tokens: [L] bool per image: keep these local tokens instead of asking the selector.
            padding_side: Side to pad the merged rows on; that of the input when left out.
            pack: Lay the merged rows end to end in one [1, N], which the language model processes without padding, each
                row as if it were alone. For training: with no cache, and with positions that are counted here.
            **kwargs: Passed on to the language model.

        Raises:
            InputError: Inputs contradict each other.
        """
        # 1. Check.
        num_cached = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        record = record_of(past_key_values) if num_cached else None
        has_images = pixel_values is not None or bool(vision_tokens)
        self._check_arguments(input_ids, inputs_embeds, attention_mask, position_ids, has_images, num_cached, pack)
        details: dict[str, Any] = {}
        new_rows: CachedRows | None = None
        if input_ids is not None and (has_images or not num_cached) and _is_row_mask(attention_mask):
            # 2. Encode.
            if vision_tokens is None and pixel_values is not None:
                if image_grids is None:
                    raise InputError("image_grids is missing, expected the processor's [images, 2] with pixel_values")
                vision_tokens = self.encode_images(pixel_values, image_grids)
            # 3. Select and merge. A text-only batch encodes a blank image before its text is embedded, as images are:
            # every process has to use the same parts in the same order.
            length = input_ids.shape[1]
            whole_prompt = num_cached > 0 and attention_mask is not None and attention_mask.shape[1] == length
            whole_prompt = whole_prompt and (record is None or record.begins(input_ids))
            cached_mask, new_mask = _split_mask(record, attention_mask, input_ids, num_cached, whole_prompt)
            given_before = not num_cached and position_ids is not None and position_ids.shape[-1] == length
            blank = self._nothing_seen() if not has_images and self._trains_with_others() else None
            inputs_embeds, merged, details = self._merge(
                input_ids,
                new_mask,
                vision_tokens or (),
                kept_local_tokens,
                labels,
                question_mask,
                position_ids if given_before else None,
                padding_side,
            )
            attention_mask = torch.cat([cached_mask, merged.attention_mask], dim=1)
            # 4. Continue the cache.
            if whole_prompt:
                # The record is that of the whole prompt, of which the cache holds the beginning.
                record, new_rows = None, rows_of(merged, input_ids, merged.position_ids)
                merged = after_beginning(merged, num_cached)
                inputs_embeds, position_ids = inputs_embeds[:, num_cached:], merged.position_ids
            else:
                if num_cached:
                    first = _first_new_position(record, cached_mask, position_ids)
                    position_ids = (merged.position_ids + first) * merged.attention_mask
                elif position_ids is None or given_before:
                    position_ids = merged.position_ids
                if record is not None or not num_cached:
                    new_rows = rows_of(merged, input_ids, position_ids)
            if blank is not None:
                inputs_embeds = inputs_embeds + blank.to(inputs_embeds)
            # 5. Pack.
            if pack:
                lengths = merged.attention_mask.sum(dim=1).tolist()
                merged, inputs_embeds = pack_rows(merged, inputs_embeds)
                # Without a mask, transformers (and flash attention in it) takes position 0 for a new sample.
                attention_mask, position_ids, new_rows = None, merged.position_ids, None
                kwargs["use_cache"] = False
                if self.language_model.config._attn_implementation == PACKED_ATTENTION:
                    kwargs["packed_lengths"] = lengths
            labels = merged.labels
            details |= {
                "attention_mask": merged.attention_mask if pack else attention_mask,
                "position_ids": position_ids,
                "token_index": merged.token_index,
            }
        else:
            # 4. Continue the cache with text, or run on embeddings or a mask of pairs.
            if record is not None:
                attention_mask, position_ids, new_rows = _continue_with_text(
                    record, input_ids, inputs_embeds, attention_mask, position_ids
                )
            if input_ids is not None:
                inputs_embeds = self.embed_text(input_ids)[0]
        # 6. Run the language model.
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        # 7. Record.
        cache = outputs.past_key_values
        if cache is not None:
            attach_record(cache, new_rows if record is None or new_rows is None else record.followed_by(new_rows))
        return SlimeModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            labels=labels,
            **details,
        )

    def _check_arguments(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        has_images: bool,
        num_cached: int,
        pack: bool,
    ) -> None:
        if has_images and input_ids is None:
            raise InputError("images came without input_ids, expected the ids that hold their placeholders")
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("expected either input_ids or inputs_embeds, got both or neither")
        if pack and (num_cached or position_ids is not None or input_ids is None or self.config.keep_position_ids):
            raise InputError(
                "pack needs input_ids, no cache and positions counted after merging (no position_ids, "
                "keep_position_ids false in the config): where a row begins is told by its position 0"
            )
        if input_ids is None:
            return
        if not _is_row_mask(attention_mask) and (has_images or self._holds_placeholders(input_ids)):
            assert attention_mask is not None
            raise InputError(
                f"attention_mask has shape {list(attention_mask.shape)}, expected [rows, tokens] with images: rows "
                "become shorter in here, which a mask of pairs does not say"
            )
        # A step of generation has one token, which `generate` keeps from being a placeholder; looking would cost it a
        # synchronisation with the GPU.
        if num_cached and not has_images and input_ids.shape[1] > 1 and self._holds_placeholders(input_ids):
            raise InputError(
                "input_ids hold image placeholders, and no image came with them: pass only the tokens that follow the "
                "cached ones, or the images of these placeholders"
            )

    def _holds_placeholders(self, input_ids: Tensor) -> bool:
        return bool((input_ids == self.config.image_token_id).any())


def _is_row_mask(attention_mask: Tensor | None) -> bool:
    """Whether a mask is one of tokens [B, S], not one of pairs [B, 1, S, S]."""
    return attention_mask is None or attention_mask.ndim == 2


def _split_mask(
    record: CachedRows | None, attention_mask: Tensor | None, input_ids: Tensor, num_cached: int, whole_prompt: bool
) -> tuple[Tensor, Tensor]:
    """Masks of the cached tokens, [B, 0] for a whole prompt, and of the new ones [B, n]."""
    batch_size, length = input_ids.shape
    if record is not None and not whole_prompt:
        return record.split_mask(attention_mask, length, batch_size)
    if attention_mask is None:
        attention_mask = input_ids.new_ones(batch_size, num_cached + length)
    return attention_mask[:, :-length], attention_mask[:, -length:]


def _first_new_position(record: CachedRows | None, cached_mask: Tensor, position_ids: Tensor | None) -> Tensor:
    """Position [B, 1] of the first token behind a filled cache."""
    if position_ids is not None:
        return position_ids[:, :1]
    if record is None:
        return cached_mask.sum(dim=1, keepdim=True)
    return record.next_positions(cached_mask.new_ones(cached_mask.shape[0], 1))


def _continue_with_text(
    record: CachedRows,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> tuple[Tensor | None, Tensor, CachedRows]:
    """Mask and positions of text that follows a filled cache, and the record of this text."""
    if input_ids is None:
        assert inputs_embeds is not None
        input_ids = torch.full(inputs_embeds.shape[:2], UNKNOWN_TOKEN, device=inputs_embeds.device)
    batch_size, length = input_ids.shape
    row_mask = attention_mask if _is_row_mask(attention_mask) else None
    cached_mask, new_mask = record.split_mask(row_mask, length, batch_size)
    if _is_row_mask(attention_mask):
        attention_mask = torch.cat([cached_mask, new_mask], dim=1)
    if position_ids is None:
        position_ids = record.next_positions(new_mask)
    return attention_mask, position_ids, rows_of_text(input_ids, new_mask, position_ids)
