"""The SliME model without its head: merge images into rows of text, run the language model (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from slime_vlm.errors import InputError
from slime_vlm.model.aligned_outputs import align_with_inputs
from slime_vlm.model.answer_finder import AnswerFinder
from slime_vlm.model.cache_name import CACHE
from slime_vlm.model.cached_rows import (
    CachedRows,
    attach_record,
    cached_and_new_masks,
    continue_with_text,
    first_new_position,
    record_of,
    rows_of,
)
from slime_vlm.model.character_tokens import EmbeddedText
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.copy_output import CopyOutput
from slime_vlm.model.copying_run import run_copying
from slime_vlm.model.image_inputs import QUESTION, views_as_rows
from slime_vlm.model.input_checks import check_inputs, check_tensors, is_row_mask
from slime_vlm.model.language_model import build_language_model
from slime_vlm.model.outputs import SlimeModelOutput, VisionTokens
from slime_vlm.model.packed_attention import PACKED_ATTENTION
from slime_vlm.model.pointing_attention import use_pointing_attention
from slime_vlm.model.slime_merging import SlimeMerging
from slime_vlm.model.token_merging import after_beginning, pack_rows


class SlimeModel(SlimeMerging):
    """SliME without its language modelling head."""

    def __init__(self, config: SlimeConfig) -> None:
        super().__init__(config)
        self.language_model = build_language_model(config.text_config)
        self.copy_output: CopyOutput | None = None
        if config.copy_output:
            use_pointing_attention(self.language_model)
            self.copy_output = CopyOutput(
                dim=config.text_config.hidden_size,
                slots=config.character_slots,
                characters=len(config.characters or "") + 2,
            )
        self.answer_finder: AnswerFinder | None = None
        if config.answer_finder:
            self.answer_finder = AnswerFinder(word_dim=config.word_dim, text_dim=config.text_config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

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
        cache: Cache | None = None,
        image_sizes: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        align_outputs: bool | None = None,
        to_logits: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> SlimeModelOutput:
        """Run the model on a batch that may mix images of any size and rows without images.

        The steps are:
            1. Check that the inputs fit together (`check_inputs`).
            2. Encode the images, unless `vision_tokens` gives their tokens (`encode_images`).
            3. Select local tokens, drop the others from the rows, and embed what is left (`_merge`).
            4. Put the rows behind the tokens of a filled cache, by the record that it carries (`cached_rows`).
            5. Pack the rows end to end, if asked to (`pack_rows`).
            6. Run the language model.
            7. Record what the cache holds now.
            8. Line the outputs up with `input_ids`, if asked to (`align_with_inputs`).

        Steps 2, 3 and 5 are skipped for `inputs_embeds`, for a mask of pairs, and for text behind a filled cache.

        Args:
            input_ids: [B, S] with one placeholder per image token before selection, images in the order of the rows.
            attention_mask: [B, S] 1 on real tokens. None means that all are real. For text alone also a mask of pairs
                [B, 1, S, S], as the language model takes it.
            position_ids: [B, S] positions of the tokens of `input_ids`, or of the merged rows if these are shorter.
                None counts the real tokens. With a filled cache and images, counting starts from the first of them.
            past_key_values: Cache of the language model. If it is filled, `input_ids` (with or without images) are the
                tokens that follow. `attention_mask` may then cover the new tokens, the cached and the new ones, or all
                tokens before selection. If `attention_mask` is as long as `input_ids` and images come along, these are
                a whole prompt: a single row. The cache then holds its first tokens, of which merging drops none, and
                the output is that of the tokens behind them.
            inputs_embeds: [B, S, D] instead of `input_ids`, for text alone.
            pixel_values: [V, 3, H, W] views of all images, or [I, v, 3, H, W] padded ones of every image.
            image_grids: [I, 2] (rows, columns) of every image.
            question_mask: [B, S] 1 on question tokens, for selector_text "question".
            labels: [B, S] token ids to predict, -100 elsewhere.
            vision_tokens: Tokens of every image instead of its pixels, see `encode_images`.
            kept_local_tokens: [L] bool per image: keep these local tokens instead of asking the selector.
            padding_side: Side on which to pad the merged rows. None takes the side of the input.
            pack: Whether to lay the merged rows end to end in one row [1, N]. The language model then processes it
                without padding, each row as if it were alone. For training: without a cache or `position_ids`.
            cache: Another name of `past_key_values`, that of transformers 5.24.
            image_sizes: [I, 2] (height, width) of the scaled images, instead of `image_grids`.
            token_type_ids: [B, S] 1 on question tokens, 2 on other tokens of a prompt, instead of `question_mask`.
            align_outputs: Whether outputs are as long as `input_ids`. None takes the config's `align_outputs`.
            to_logits: Head of the language model [..., D] -> [..., V], which the copy output asks whether a space is
                written or copied. None takes the token embeddings, as in models whose head is tied to them.
            **kwargs: Passed on to the language model.

        Raises:
            InputError: Inputs contradict each other.
        """
        # 1. Check the inputs.
        check_tensors(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grids=image_grids,
            image_sizes=image_sizes,
            question_mask=question_mask,
            token_type_ids=token_type_ids,
            labels=labels,
        )
        past_key_values = cache if past_key_values is None else past_key_values
        num_cached = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        record = record_of(past_key_values) if num_cached else None
        new_input = inputs_embeds if input_ids is None else input_ids
        if record is not None and position_ids is not None and new_input is not None:
            # A caller who repeated or picked rows of the cache has to give the positions. The record is void then.
            record = record if record.num_rows == new_input.shape[0] else None
        has_images = pixel_values is not None or bool(vision_tokens)
        check_inputs(
            self.config,
            input_ids,
            inputs_embeds,
            attention_mask,
            num_cached=num_cached,
            labels=labels,
            pixel_values=pixel_values,
            image_grids=image_grids,
            has_images=has_images,
        )
        if pack and (num_cached or position_ids is not None or input_ids is None or self.config.keep_position_ids):
            raise InputError(
                "pack needs input_ids, no cache and positions that are counted after merging (no position_ids, "
                "keep_position_ids false in the config): a row is known to begin where its position is 0"
            )
        has_characters = self.open_vocabulary is not None
        if has_characters and (pack or input_ids is None or not is_row_mask(attention_mask)):
            raise InputError(
                "a model with characters got pack, inputs_embeds or a mask of pairs, expected input_ids with a mask "
                "[rows, tokens]: it reads the words of questions from them"
            )
        pixel_values, image_grids = views_as_rows(pixel_values, image_grids, image_sizes, self.config.view_size)
        prompt_mask: Tensor | None = None
        if token_type_ids is not None:
            question_mask, prompt_mask = token_type_ids == QUESTION, token_type_ids > 0
        source_mask, source_labels = attention_mask, labels
        details: dict[str, Any] = {}
        new_rows: CachedRows | None = None
        read: EmbeddedText | None = None
        merges = has_images or has_characters or not num_cached
        if input_ids is not None and merges and is_row_mask(attention_mask):
            # 2. Encode the images.
            if vision_tokens is None and pixel_values is not None:
                if image_grids is None:
                    raise InputError("image_grids is missing, expected the processor's [images, 2] with pixel_values")
                vision_tokens = self.encode_images(pixel_values, image_grids)
            # 3. Select and merge. A batch without images encodes a blank one, before its text is embedded, as a batch
            # with images does: in distributed training every process must use the same parts in the same order.
            num_new = input_ids.shape[1]
            is_whole_prompt = num_cached > 0 and attention_mask is not None and attention_mask.shape[1] == num_new
            is_whole_prompt = is_whole_prompt and (record is None or record.begins(input_ids))
            if has_characters and num_cached and record is None and not is_whole_prompt:
                raise InputError(
                    "the cache has no record of its tokens, which a model with characters needs: pass the cache that "
                    "the model returned, without position_ids after changing its rows"
                )
            cached_mask, new_mask = cached_and_new_masks(record, attention_mask, input_ids, num_cached, is_whole_prompt)
            are_unmerged = not num_cached and position_ids is not None and position_ids.shape[-1] == num_new
            zero = self._zero_of_blank_image() if not has_images and self._runs_every_part() else None
            before = None if is_whole_prompt else record
            read = self._read_rows(input_ids, new_mask, before) if has_characters else None
            merged, inputs_embeds, details = self._merge(
                input_ids,
                new_mask,
                vision_tokens or (),
                kept_local_tokens,
                labels,
                question_mask,
                prompt_mask,
                position_ids if are_unmerged else None,
                padding_side,
                read,
                None if before is None else before.copying,
            )
            attention_mask = torch.cat([cached_mask, merged.attention_mask], dim=1)
            # 4. Put the rows behind the cached tokens.
            if is_whole_prompt:
                # The new record is that of the whole prompt. The cache holds its beginning already.
                record, new_rows = None, rows_of(merged, input_ids, merged.position_ids)
                merged = after_beginning(merged, num_cached)
                inputs_embeds, position_ids = inputs_embeds[:, num_cached:], merged.position_ids
            else:
                if num_cached:
                    # Given ones count the characters of questions as well.
                    given = None if has_characters else position_ids
                    first = first_new_position(record, cached_mask, given)
                    position_ids = (merged.position_ids + first) * merged.attention_mask
                elif position_ids is None or are_unmerged:
                    position_ids = merged.position_ids
                if record is not None or not num_cached:
                    new_rows = rows_of(merged, input_ids, position_ids)
            if zero is not None:
                inputs_embeds = inputs_embeds + zero.to(inputs_embeds)
            # 5. Pack.
            if pack:
                lengths = merged.attention_mask.sum(dim=1).tolist()
                merged, inputs_embeds = pack_rows(merged, inputs_embeds)
                # Without a mask, transformers (and flash attention in it) takes position 0 for the start of a sample.
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
            # 4. Put text behind the cached tokens; or take embeddings, or text with a mask of pairs, as they are.
            if record is not None:
                attention_mask, position_ids, new_rows = continue_with_text(
                    record, input_ids, inputs_embeds, attention_mask, position_ids
                )
            if input_ids is not None:
                inputs_embeds = self.embed_text(input_ids)[0]
        # 6. Run the language model.
        whole_rows = new_rows if record is None or new_rows is None else record.followed_by(new_rows)
        outputs: Any
        if self.copy_output is None:
            outputs = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                **{CACHE: past_key_values},
                **kwargs,
            )
            cache = getattr(outputs, CACHE)
        else:
            assert whole_rows is not None
            assert read is not None
            inputs = self._copying_inputs(inputs_embeds, attention_mask, position_ids, merged, read, whole_rows)
            assert self.open_vocabulary is not None
            space = self.open_vocabulary.space
            embeddings: Any = self.get_input_embeddings()
            head = to_logits or partial(F.linear, weight=embeddings.weight)
            outputs = run_copying(self.language_model, head, self.copy_output, inputs, past_key_values, space, **kwargs)
            cache, whole_rows.copying = outputs.cache, outputs.copying
            details |= {
                "pointing": outputs.pointing,
                "held_characters": outputs.copying.held(inputs.cells),
                "follows": outputs.follows,
            }
        # 7. Record what the cache holds.
        if cache is not None:
            attach_record(cache, whole_rows)
        model_outputs = SlimeModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **{CACHE: cache},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            labels=labels,
            **details,
        )
        # 8. Line the outputs up with the inputs.
        align_outputs = self.config.align_outputs if align_outputs is None else align_outputs
        if align_outputs and model_outputs.token_index is not None and not (num_cached or pack):
            assert input_ids is not None
            has_limit = self.config.max_sequence_length is not None
            image_token = self.config.image_token_id
            align_with_inputs(model_outputs, input_ids, source_mask, source_labels, image_token, has_limit)
        return model_outputs
