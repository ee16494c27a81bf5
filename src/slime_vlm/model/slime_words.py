"""What a model with characters does with text: words in place of letters, and answers that know what is asked.

Everything here needs `SlimeConfig.characters`. See `character_tokens` and `open_vocabulary`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slime_vlm.model.cached_rows import CachedRows
from slime_vlm.model.character_tokens import CharacterText
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.slime_selection import SlimeSelection
from slime_vlm.model.token_merging import MergedRows


class SlimeWords(SlimeSelection):
    """The vision parts of SliME with its selection, and the words of questions."""

    def _showing(self, vision_tokens: Sequence[VisionTokens], kept: Sequence[Tensor]) -> Sequence[Tensor]:
        """Leave out kept local tokens that show nothing, in a model with characters."""
        if self.open_vocabulary is None:
            return kept
        shown = [self.open_vocabulary.shown(t.characters) for t in vision_tokens if t.characters is not None]
        return [mask.to(own.device) & own for mask, own in zip(kept, shown, strict=True)]

    def _named_characters(self, vision_tokens: Sequence[VisionTokens], kept: Sequence[Tensor] | None) -> list[Tensor]:
        """Return the characters of every token of every image, as `image_blocks` orders them: [n, K] each."""
        layout = self.config.token_layout
        found = []
        masks: Sequence[Tensor | None] = kept or [None] * len(vision_tokens)
        for tokens, mask in zip(vision_tokens, masks, strict=True):
            assert tokens.characters is not None
            named = tokens.characters if mask is None else tokens.characters[mask.to(tokens.characters.device)]
            found.append(F.pad(named, (0, 0, layout.num_global_tokens + layout.num_separators, 0)))
        return found

    def _embed_questions(self, embeddings: Tensor, read: CharacterText, merged: MergedRows) -> Tensor:
        """Put the words of questions in place of characters, and tell answers what is asked.

        Args:
            embeddings: [B, S, D] of the tokens as they are.
            read: The text of the rows before merging.
            merged: The rows.
        """
        assert self.open_vocabulary is not None
        vocabulary = self.open_vocabulary
        asked = vocabulary.question_words(read.words)
        words = read.of_turns()
        vectors = vocabulary.question_vector(asked[words], words > 0)
        index = merged.token_index.clamp(min=0)
        real = merged.token_index >= 0
        word = read.word.gather(1, index) * real
        is_word = (word > 0)[..., None]
        # Turns without a word have none behind the last with one.
        turn = read.turn.gather(1, index)
        vector = F.pad(vectors, (0, 0, 0, max(0, int(turn.max()) + 1 - vectors.shape[1])))
        vector = vector.gather(1, turn[..., None].expand(-1, -1, vectors.shape[2]))
        step = read.step.gather(1, index) * real
        told = step > 0 if self.config.guided_answers else step == 1
        embeddings = embeddings.masked_fill(is_word, 0.0) + vocabulary.word_tokens(asked[word]) * is_word
        return embeddings + vocabulary.answer_step(vector, step - 1) * told[..., None]

    def _read_rows(self, input_ids: Tensor, new_mask: Tensor, record: CachedRows | None) -> CharacterText:
        """Read new tokens [B, n] of a model with characters, and the cached ones before them."""
        ids = input_ids.masked_fill((new_mask == 0) & (input_ids != self.config.image_token_id), 0)
        if record is not None:
            ids = torch.cat([record.input_ids.to(ids), ids], dim=1)
        return self.read_text(ids).last(input_ids.shape[1])
