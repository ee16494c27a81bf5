"""The selection of local tokens by the question: from the tokens of images and a prompt to those kept (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.errors import InputError
from slime_vlm.model.character_tokens import CharacterTokens, EmbeddedText, padded_groups, read_text
from slime_vlm.model.input_checks import check_tensors
from slime_vlm.model.labels import IGNORED_LABEL
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.question_selector import Selection
from slime_vlm.model.slime_vision import SlimeVision
from slime_vlm.model.token_merging import check_vision_tokens, image_rows


class SlimeSelection(SlimeVision):
    """The vision parts of SliME with its selection, which needs the embeddings of text but no language model."""

    def embed_text(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed token ids [B, S]: the embeddings [B, S, D], and the mask [B, S] of image placeholders."""
        placeholders = input_ids == self.config.image_token_id
        # The placeholder's id may lie outside the vocabulary. Its embedding is replaced later.
        return self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0)), placeholders

    @property
    def _has_selection(self) -> bool:
        return self.selector is not None and self.config.views != "global"

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
            question_mask: [B, S] 1 on question tokens.

        Returns:
            Scores, probabilities and kept tokens of every image. None if the model selects nothing: it has no local
            tokens or no selector.

        Raises:
            InputError: The images' tokens do not fit the placeholders or this model.
        """
        if not self._has_selection:
            return None
        check_tensors(input_ids=input_ids, attention_mask=attention_mask, labels=labels, question_mask=question_mask)
        placeholders = input_ids == self.config.image_token_id
        check_vision_tokens(vision_tokens, self.config.token_layout, has_characters=self.config.characters is not None)
        rows = image_rows(placeholders, self._placeholder_counts(vision_tokens, input_ids.device))
        visible = ~placeholders if attention_mask is None else ~placeholders & (attention_mask != 0)
        return self._selection(vision_tokens, input_ids, visible, rows, labels, question_mask)

    def select_by_text(self, tokens: VisionTokens, text_ids: Tensor) -> Selection:
        """Select local tokens of one image by the text alone that the selector compares with.

        Args:
            tokens: Tokens of the image.
            text_ids: int64 [S] ids of the text, without placeholders.
        """
        ids = text_ids[None]
        everything = torch.ones_like(ids, dtype=torch.bool)
        return self._selection([tokens], ids, everything, torch.zeros_like(ids[:, 0]), None, everything)

    def _selection(
        self,
        vision_tokens: Sequence[VisionTokens],
        input_ids: Tensor,
        visible: Tensor,
        rows: Tensor,
        labels: Tensor | None,
        question_mask: Tensor | None,
        prompt_mask: Tensor | None = None,
        read: EmbeddedText | None = None,
    ) -> Selection:
        """Select local tokens of images whose placeholders are in `rows` [I], by visible text [B, S] of these rows."""
        assert self.selector is not None
        text_mask = self._selector_text_mask(input_ids, visible, labels, question_mask, prompt_mask)
        if self.open_vocabulary is not None:
            is_padding = ~visible & (input_ids != self.config.image_token_id)
            read = self.read_text(input_ids.masked_fill(is_padding, 0)) if read is None else read
            return self._finite(self._selection_by_words(vision_tokens, read, text_mask, rows))
        # Columns without text for the selector, such as those of image placeholders, would only cost memory.
        columns = text_mask.any(dim=0)
        text = self.embed_text(input_ids[:, columns])[0]
        given = [tokens.local_tokens for tokens in vision_tokens if tokens.local_tokens is not None]
        local_tokens = [tokens.to(text) for tokens in given]
        norms: Tensor | None = None
        if not torch.is_grad_enabled() and all(tokens.dtype == text.dtype for tokens in given):
            # Padding is masked, and a norm of 1 divides it.
            known = [tokens.local_norms().to(text.device) for tokens in vision_tokens]
            norms = pad_sequence(known, batch_first=True, padding_value=1.0)
        selection: Selection = self.selector(
            pad_sequence(local_tokens, batch_first=True) if len(local_tokens) > 1 else local_tokens[0][None],
            text,
            text_mask[:, columns],
            torch.tensor([len(tokens) for tokens in local_tokens], device=text.device),
            rows=rows,
            norms=norms,
            temperature=self.config.selector_temperature,
            noise_std=self.config.selector_noise,
            top_p=self.config.selector_top_p,
            max_tokens=self.config.max_local_tokens,
        )
        return self._finite(selection)

    def read_text(self, input_ids: Tensor) -> EmbeddedText:
        """Read rows of character tokens [B, S], padding 0, and embed their words and questions."""
        assert self.open_vocabulary is not None
        assert self.config.characters is not None
        vocabulary = self.open_vocabulary
        tokens = CharacterTokens(len(self.config.characters))
        read = read_text(input_ids, tokens, vocabulary.classes, vocabulary.word_embedding.buckets)
        word_vectors, words = vocabulary.question_words(read.words), read.of_turns()
        questions = vocabulary.question_vector(word_vectors[words], words > 0)
        # Turns without a word have none behind the last with one.
        questions = F.pad(questions, (0, 0, 0, max(0, int(read.turn.max()) + 1 - questions.shape[1])))
        return EmbeddedText(**vars(read), word_vectors=word_vectors, questions=questions)

    def _selection_by_words(
        self, vision_tokens: Sequence[VisionTokens], read: EmbeddedText, text_mask: Tensor, rows: Tensor
    ) -> Selection:
        """Select local tokens by the words of questions. Those that show nothing take no part."""
        assert self.selector is not None
        assert self.open_vocabulary is not None
        vocabulary = self.open_vocabulary
        row, column = ((read.word > 0) & text_mask).nonzero(as_tuple=True)
        words = padded_groups(row, read.word[row, column], len(text_mask))
        question = vocabulary.question_vector(read.word_vectors[words], words > 0)
        found = [tokens.words.to(question) for tokens in vision_tokens if tokens.words is not None]
        shown = [
            vocabulary.shown(tokens.characters.to(question.device))
            for tokens in vision_tokens
            if tokens.characters is not None
        ]
        lengths = torch.stack([mask.sum() for mask in shown])
        # A page that shows nothing gets one token here, which is none of its own.
        local = [F.pad(part[mask], (0, 0, 0, int(not mask.any()))) for part, mask in zip(found, shown, strict=True)]
        selection: Selection = self.selector(
            pad_sequence(local, batch_first=True),
            question[rows][:, None],
            text_mask.new_ones(len(rows), 1),
            lengths.clamp(min=1),
            temperature=self.config.selector_temperature,
            noise_std=self.config.selector_noise,
            top_p=self.config.selector_top_p,
            max_tokens=self.config.max_local_tokens,
        )

        def spread(values: Tensor, fill: float) -> Tensor:
            whole = [
                torch.full(mask.shape, fill, dtype=values.dtype, device=mask.device).masked_scatter(mask, part)
                for mask, part in zip(shown, values, strict=True)
            ]
            return pad_sequence(whole, batch_first=True, padding_value=0)

        # -1 is the least cosine.
        return Selection(spread(selection.scores, -1.0), spread(selection.probs, 0.0), spread(selection.kept, 0))

    def _finite(self, selection: Selection) -> Selection:
        # Softmax makes one damaged score the whole row's, and sorting would then keep a single token without a word.
        if not bool(torch.isfinite(selection.probs).all()):
            raise InputError(
                "the selector's scores are not finite, expected numbers: local tokens or text embeddings hold NaN or "
                "infinity; check the weights, or load the model in float32 or bfloat16"
            )
        return selection

    def _selector_text_mask(
        self,
        input_ids: Tensor,
        visible: Tensor,
        labels: Tensor | None,
        question_mask: Tensor | None,
        prompt_mask: Tensor | None,
    ) -> Tensor:
        """Restrict visible text tokens [B, S] to those that the selector compares with (config `selector_text`)."""
        if self.config.selector_text == "question":
            if question_mask is None:
                raise InputError(
                    "question_mask is missing, expected the processor's mask of question tokens: pass it, or set "
                    "selector_text='prompt'"
                )
            return visible & question_mask.to(visible.device).bool()
        if self.config.selector_text == "prompt" and prompt_mask is not None:
            return visible & prompt_mask.to(visible.device).bool()
        if self.config.selector_text == "prompt" and labels is not None:
            if bool((labels[input_ids == self.config.image_token_id] != IGNORED_LABEL).any()):
                # The selector would take the question for an answer, and see no text.
                raise InputError(
                    "labels cover image placeholders, expected -100 on all tokens but answers: the selector compares "
                    "with the tokens that have none; mask the prompt, or set the processor's batch_layout to 'images'"
                )
            # Deviation: the published training shows the answer to the selector, which inference cannot do.
            return visible & (labels == IGNORED_LABEL)
        return visible

    def _placeholder_counts(self, vision_tokens: Sequence[VisionTokens], device: torch.device) -> Tensor:
        layout = self.config.token_layout
        return torch.tensor([layout.num_image_tokens(*tokens.grid) for tokens in vision_tokens], device=device)

    def _kept_tokens(self, placeholders: Tensor, kept_local_tokens: Sequence[Tensor] | None) -> Tensor:
        """Return a mask [B, S] that is False on the placeholders of dropped local tokens."""
        kept = torch.ones_like(placeholders)
        if not kept_local_tokens:
            return kept
        layout = self.config.token_layout
        always = kept.new_ones(layout.num_global_tokens + layout.num_separators)
        masks = [part for mask in kept_local_tokens for part in (always, mask.to(kept.device))]
        return kept.masked_scatter(placeholders, torch.cat(masks))

    def page_position_embeddings(self, rows: int, cols: int, kept: Tensor | None = None) -> Tensor:
        """Embed the page position of every local token of a grid of tiles, [L, D] in the order of merging.

        Args:
            rows: Tiles from top to bottom.
            cols: Tiles from left to right.
            kept: [L] bool: embed the positions of these tokens only.

        Raises:
            InputError: The model has no page positions.
        """
        if self.page_positions is None:
            raise InputError("this model has no page positions, set page_positions=True in its config")
        side = self.config.token_layout.tile_side
        return self.page_positions(rows, cols, side, self.config.local_merge, kept, self.device)

    def image_blocks(self, vision_tokens: Sequence[VisionTokens], kept: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Put the tokens of every image in the order of the sequence: global, separator, kept local (section 3.4).

        Args:
            vision_tokens: Tokens of every image.
            kept: [L] bool per image. None keeps all local tokens.

        Returns:
            [n, D] per image.
        """
        separators: list[Tensor] = []
        if self.config.token_layout.num_separators:
            # Looked up once for all images: every process must use the embeddings equally often.
            separator = torch.tensor([self.config.separator_token_id], device=self.device)
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
            if self.page_positions is not None and self.open_vocabulary is None:
                local = local + self.page_position_embeddings(*tokens.grid, kept).to(local)
            parts.append(local)
        return torch.cat([part.to(parts[0]) for part in parts])
