"""From the tokens of images and a prompt to rows for the language model (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from slime_vlm.model.cached_rows import rows_of
from slime_vlm.model.character_tokens import EmbeddedText
from slime_vlm.model.collectives import num_processes
from slime_vlm.model.copying import Copying
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.merged_prompt import MergedPrompt
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.slime_words import SlimeWords
from slime_vlm.model.token_merging import (
    MergedRows,
    check_vision_tokens,
    fill_placeholders,
    image_rows,
    merge_rows,
    padding_side_of,
)


class SlimeMerging(SlimeWords):
    """The vision parts of SliME with its selection and words, and the merging of images into rows of text."""

    def get_image_features(
        self, pixel_values: Tensor, image_grids: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Compute the tokens of every image as they enter the sequence if no local token is dropped.

        Returns:
            An output whose `pooler_output` is a list with one [n, D] tensor per image.
        """
        vision_tokens = self.encode_images(pixel_values, image_grids)
        return BaseModelOutputWithPooling(pooler_output=self.image_blocks(vision_tokens))

    def _runs_every_part(self) -> bool:
        """Whether a batch without images has to run the vision parts as well.

        In distributed training every process must use the same parts in the same order, or collectives deadlock.
        """
        if not self.training:
            return False
        parts = [part for name, part in self.named_children() if name != "language_model"]
        return num_processes() > 1 or any(p.requires_grad for part in parts for p in part.parameters())

    def _zero_of_blank_image(self) -> Tensor:
        """Run the vision parts on a blank image of one tile and return 0, so that they get gradients of 0, not None."""
        blank = self._blank_views(2)
        tokens = self.encode_image(blank, (1, 1))
        if self._has_selection:
            # It gets no gradient, but its weights and the embeddings may be sharded over the processes.
            ids = torch.tensor([[self.config.separator_token_id]], device=blank.device)
            everything = torch.ones_like(ids, dtype=torch.bool)
            self._selection([tokens], ids, everything, torch.zeros_like(ids[0]), None, everything)
        # Multiply before the sum: the sum of many tokens may overflow 16 bits.
        return (self.image_blocks([tokens])[0] * 0.0).sum()

    def _merge(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        vision_tokens: Sequence[VisionTokens],
        kept_local_tokens: Sequence[Tensor] | None,
        labels: Tensor | None,
        question_mask: Tensor | None,
        prompt_mask: Tensor | None,
        position_ids: Tensor | None,
        padding_side: str | None,
        read: EmbeddedText | None = None,
        cached_pages: Copying | None = None,
    ) -> tuple[MergedRows, Tensor, dict[str, Any]]:
        """Select local tokens, drop the others from the rows, and embed what is left.

        `read` is the text of a model with characters. Characters of questions that carry no word are dropped as well,
        and so are local tokens that show nothing. `cached_pages` are those of a cache before the rows.

        Returns:
            The merged rows, their embeddings [B, S, D] with 0 in padding, and the fields of the model's output that
            describe the images.
        """
        placeholders = input_ids == self.config.image_token_id
        has_characters, has_finder = read is not None, self.config.answer_finder
        check_vision_tokens(vision_tokens, self.config.token_layout, kept_local_tokens, has_characters, has_finder)
        counts = self._placeholder_counts(vision_tokens, input_ids.device)
        rows = image_rows(placeholders, counts) if vision_tokens or placeholders.any() else counts
        details: dict[str, Any] = {}
        if vision_tokens:
            details["vision_tokens"] = tuple(vision_tokens)
            if vision_tokens[0].gates is not None:
                details["adapter_weights"] = tuple(tokens.gates for tokens in vision_tokens)
            if kept_local_tokens is None and self._has_selection:
                visible = ~placeholders & (attention_mask != 0)
                selection = self._selection(
                    vision_tokens, input_ids, visible, rows, labels, question_mask, prompt_mask, read
                )
                lengths = [tokens.num_local_tokens for tokens in vision_tokens]
                details["selection_scores"] = tuple(s[:n] for s, n in zip(selection.scores, lengths, strict=True))
                details["selection_probs"] = tuple(p[:n] for p, n in zip(selection.probs, lengths, strict=True))
                kept_local_tokens = tuple(k[:n] for k, n in zip(selection.kept, lengths, strict=True))
            if kept_local_tokens is not None:
                kept_local_tokens = self._showing(vision_tokens, kept_local_tokens)
                details["kept_local_tokens"] = tuple(kept_local_tokens)
        kept = self._kept_tokens(placeholders, kept_local_tokens)
        kept = kept if read is None else kept & ~read.dropped
        merged = merge_rows(
            input_ids,
            attention_mask,
            kept,
            padding_side=padding_side or padding_side_of(attention_mask),
            labels=None if labels is None else labels.masked_fill(placeholders, IGNORED_LABEL),
            position_ids=position_ids,
            keep_position_ids=self.config.keep_position_ids,
            max_length=self.config.max_sequence_length,
            uncounted=None if read is None else read.dropped,
        )
        # Images come before the text, as in a batch without images: processes must use parts in the same order.
        features = torch.cat(self.image_blocks(vision_tokens, kept_local_tokens)) if vision_tokens else None
        embeddings = self.embed_text(merged.input_ids)[0]
        cells: Tensor | None = None
        pages = cached_pages
        if self.copy_output is not None:
            merged.copying, cells = self._pages(vision_tokens, kept_local_tokens, rows.long(), len(input_ids))
            merged.cells = torch.full_like(merged.input_ids, -1)
            pages = merged.copying if pages is None else pages.followed_by(merged.copying)
        filled = feature_index = None
        if features is not None:
            # Index of the feature of every kept placeholder. Cutting long rows may have removed some placeholders.
            feature_index = (placeholders & kept).flatten().cumsum(0).view_as(kept) - 1
            token_index = merged.token_index.clamp(min=0)
            filled = placeholders.gather(1, token_index) & (merged.token_index >= 0)
            feature_index = feature_index.gather(1, token_index)[filled]
            if merged.cells is not None and cells is not None:
                merged.cells[filled] = cells[feature_index]
        if read is not None:
            cells_so_far = self._cells_so_far(vision_tokens, placeholders, counts)
            embeddings = self._embed_questions(embeddings, read, merged, pages, cells_so_far)
        if features is not None and filled is not None:
            embeddings = fill_placeholders(embeddings, filled, features[feature_index])
        return merged, embeddings * merged.attention_mask[..., None], details

    def merge_prompt(
        self, input_ids: Tensor, vision_tokens: Sequence[VisionTokens], kept_local_tokens: Sequence[Tensor]
    ) -> MergedPrompt:
        """Drop local tokens from one prompt [1, C] and embed the rest, for callers that run the language model.

        Args:
            input_ids: [1, C] with one placeholder per image token before selection.
            vision_tokens: Tokens of every image.
            kept_local_tokens: [L] bool per image.
        """
        real = torch.ones_like(input_ids)
        read = None if self.open_vocabulary is None else self._read_rows(input_ids, real, None)
        rows, embeddings, details = self._merge(
            input_ids, real, vision_tokens, kept_local_tokens, None, None, None, None, "right", read
        )
        found = MergedPrompt(rows, embeddings, details.get("kept_local_tokens", ()))
        if read is not None:
            found.question = read.last_question()
            if self.copy_output is not None:
                record = rows_of(rows, input_ids, rows.position_ids)
                found.copying = self._copying_inputs(
                    embeddings, rows.attention_mask, rows.position_ids, rows, read, record
                )
        return found
