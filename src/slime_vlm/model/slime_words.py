"""What a model with characters does with text: words in place of letters, and answers that know what is asked.

Everything here needs `SlimeConfig.characters`. See `character_tokens` and `open_vocabulary`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slime_vlm.model.answer_finder import NOWHERE, FinderCells
from slime_vlm.model.cached_rows import CachedRows
from slime_vlm.model.character_tokens import EmbeddedText
from slime_vlm.model.copy_output import following_places
from slime_vlm.model.copying import Copying
from slime_vlm.model.copying_run import CopyingInputs
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

    def _pages(
        self, vision_tokens: Sequence[VisionTokens], kept: Sequence[Tensor] | None, rows: Tensor, num_rows: int
    ) -> tuple[Copying, Tensor]:
        """Collect what answers may copy from.

        Args:
            vision_tokens: Tokens of every image.
            kept: [L] bool of every image. None for all.
            rows: int64 [I] row of every image.
            num_rows: Number B of rows.

        Returns:
            The pages of every row, and the cells of the tokens of all images as `image_blocks` orders them, int64 [P],
            -1 for tokens of the global view and separators.
        """
        assert self.open_vocabulary is not None
        layout, slots = self.config.token_layout, self.config.character_slots
        none = rows.new_full((layout.num_global_tokens + layout.num_separators,), -1)
        pages: list[list[Tensor]] = [[] for _ in range(num_rows)]
        words: list[list[Tensor]] = [[] for _ in range(num_rows)]
        own_words: list[list[Tensor]] = [[] for _ in range(num_rows)]
        following: list[list[Tensor]] = [[] for _ in range(num_rows)]
        cells = [none[:0]]
        shown: list[list[FinderCells]] = [[] for _ in range(num_rows)]
        masks: Sequence[Tensor | None] = kept or [None] * len(vision_tokens)
        for tokens, mask, row in zip(vision_tokens, masks, rows.tolist(), strict=True):
            assert tokens.characters is not None
            assert tokens.words is not None
            ids = tokens.characters.to(rows.device)
            first = sum(len(page) for page in pages[row])
            raster = ids.view(tokens.grid[0] * layout.tile_side, -1, slots)
            after = following_places(raster)
            pages[row].append(ids)
            words[row].append(tokens.words.to(rows.device))
            own_words[row].append(self._own_words(tokens, raster))
            following[row].append(torch.where(after < 0, after, after + first * slots))
            index = torch.arange(first, first + len(ids), device=rows.device)
            cells += [none, index if mask is None else index[mask.to(rows.device)]]
            if self.config.answer_finder:
                shown[row].append(self._page_cells(tokens, raster, mask))
        # One cell at least, so that there is something to look up.
        empty = rows.new_zeros(1, slots)
        page = pad_sequence([torch.cat(parts or [empty]) for parts in pages], batch_first=True)
        nowhere = rows.new_full((slots,), -1)
        places = pad_sequence([torch.cat(p or [nowhere]) for p in following], batch_first=True, padding_value=-1)
        none_said = torch.zeros(1, self.config.word_dim, device=rows.device)
        vectors, own = (
            pad_sequence([torch.cat(parts or [none_said]) for parts in found], batch_first=True)
            for found in (words, own_words)
        )
        nowhere = rows.new_full((num_rows,), -1)
        found = self._padded_cells(shown, vectors) if self.config.answer_finder else None
        copying = Copying(page, places, vectors, own, nowhere, has_images=bool(vision_tokens), shown=found)
        return copying, torch.cat(cells)

    def _page_cells(self, tokens: VisionTokens, raster: Tensor, kept: Tensor | None) -> FinderCells:
        """Return what an answer finder has to know of an image's cells, given their characters [R, C, K]."""
        assert self.open_vocabulary is not None
        assert tokens.contexts is not None
        device = raster.device
        height, width = raster.shape[:2]
        index = torch.arange(height * width, device=device)
        kept = torch.ones_like(index, dtype=torch.bool) if kept is None else kept.to(device)
        return FinderCells(
            contexts=tokens.contexts.to(device)[None],
            rows=index.div(width, rounding_mode="floor")[None],
            cols=(index % width)[None],
            image=torch.zeros_like(index)[None],
            begins=self.open_vocabulary.run_begins(raster).flatten()[None],
            kept=(kept & self.open_vocabulary.shown(raster).flatten())[None],
        )

    @staticmethod
    def _padded_cells(images: Sequence[Sequence[FinderCells]], vectors: Tensor) -> FinderCells:
        """Put the cells of the images of rows side by side, as long as vectors [B, P, W]."""
        num_rows, length = vectors.shape[:2]
        place = torch.zeros(num_rows, length, dtype=torch.long, device=vectors.device)
        whole = FinderCells(torch.zeros_like(vectors), place, place, place, place.bool(), place.bool()).map(torch.clone)
        for row, pages in enumerate(images):
            if pages:
                joined = reduce(FinderCells.followed_by, pages)
                for part in fields(FinderCells):
                    getattr(whole, part.name)[row, : joined.rows.shape[1]] = getattr(joined, part.name)[0]
        return whole

    def _own_words(self, tokens: VisionTokens, raster: Tensor) -> Tensor:
        """Return the vectors [L, W] of the words that local tokens touch, given their characters [R, C, K]."""
        assert self.open_vocabulary is not None
        vocabulary = self.open_vocabulary
        return tokens.own_words(lambda: vocabulary.own_words(raster).flatten(0, 1)).to(raster.device)

    @staticmethod
    def _cells_so_far(vision_tokens: Sequence[VisionTokens], placeholders: Tensor, counts: Tensor) -> Tensor:
        """Count the cells of the images that have ended up to every token, kept or not.

        Args:
            vision_tokens: Tokens of every image.
            placeholders: bool [B, S] of the rows before merging.
            counts: [I] placeholders of every image.

        Returns:
            int64 [B, S].
        """
        cells = torch.zeros_like(placeholders, dtype=torch.long).flatten()
        ends = placeholders.flatten().nonzero()[:, 0][counts.long().cumsum(0) - 1]
        cells[ends] = torch.tensor([tokens.num_local_tokens for tokens in vision_tokens]).to(cells)
        return cells.view_as(placeholders).cumsum(dim=1)

    def _embed_questions(
        self, embeddings: Tensor, read: EmbeddedText, merged: MergedRows, pages: Copying | None, cells_so_far: Tensor
    ) -> Tensor:
        """Put the words of questions in place of characters, and tell answers what is asked.

        Args:
            embeddings: [B, S, D] of the tokens as they are.
            read: The text of the rows before merging.
            merged: The rows.
            pages: The pages of the rows, with those of a cache before them. None without a copy output.
            cells_so_far: int64 [B, C] of the rows before merging, see `_cells_so_far`.
        """
        assert self.open_vocabulary is not None
        vocabulary = self.open_vocabulary
        index = merged.token_index.clamp(min=0)
        real = merged.token_index >= 0
        word = read.word.gather(1, index) * real
        is_word = (word > 0)[..., None]
        turn = read.turn.gather(1, index)
        vector = read.questions.gather(1, turn[..., None].expand(-1, -1, read.questions.shape[2]))
        step = read.step.gather(1, index) * real
        told = step > 0 if self.config.guided_answers else step == 1
        embeddings = embeddings.masked_fill(is_word, 0.0) + vocabulary.word_tokens(read.word_vectors[word]) * is_word
        embeddings = embeddings + vocabulary.answer_step(vector, step - 1) * told[..., None]
        if pages is None or self.copy_output is None:
            return embeddings
        # An answer knows the images before it. Cells of new images follow those of a cache.
        assert merged.copying is not None
        new = merged.copying.page.shape[1] if merged.copying.has_images else 0
        before = pages.page.shape[1] - new + cells_so_far.gather(1, index)
        begins = step == 1
        known = before.new_zeros(read.questions.shape[:2]).scatter_reduce(1, turn, before * begins, "amax")
        best = pages.most_similar(read.questions, known)
        embeddings = embeddings + self.copy_output.told_similarity(best.gather(1, turn)) * begins[..., None]
        turns = turn[begins].unique().tolist() if self.answer_finder is not None else []
        if self.answer_finder is None or not turns:
            return embeddings
        merged.beginnings, merged.endings = self._find(pages, read, known, turns)
        absent = merged.beginnings[..., -1].detach().gather(1, turn)
        return embeddings + self.answer_finder.tell(absent) * begins[..., None]

    def _find(self, pages: Copying, read: EmbeddedText, known: Tensor, turns: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Find where the answers of some turns begin and end: [B, T, P + 1] and [B, T, P], see `AnswerFinder`.

        Args:
            pages: The pages of the rows.
            read: The text of the rows.
            known: int64 [B, T] cells that came before every question.
            turns: Those whose answers begin among the new tokens of some row.
        """
        assert self.answer_finder is not None
        assert self.open_vocabulary is not None
        assert pages.shown is not None
        of_turns = read.of_turns()
        asked = self.open_vocabulary.asked_words(read.word_vectors[of_turns], of_turns > 0)
        # As `questions`: turns without a word have none behind the last with one.
        asked = F.pad(asked, (0, 0, 0, 0, 0, read.questions.shape[1] - asked.shape[1]))
        index = torch.arange(pages.page.shape[1], device=known.device)
        found = []
        for turn in range(known.shape[1]):
            if turn not in turns:
                size = (len(known), pages.page.shape[1] + 1)
                none = torch.full(size, NOWHERE, dtype=torch.float32, device=known.device)
                found.append((none, none[:, :-1]))
                continue
            kept = pages.shown.kept & (index < known[:, turn, None])
            one = slice(turn, turn + 1)
            words = read.questions[:, one], asked[:, one]
            both = self.answer_finder.on_pages(pages.shown, pages.own_words, pages.words, *words, kept)
            found.append((both[0][:, 0], both[1][:, 0]))
        beginnings, endings = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
        return beginnings, endings

    def embed_answer(self, input_ids: Tensor, question: Tensor, said: Tensor) -> Tensor:
        """Embed characters of answers, without what the copy output tells of what follows.

        Args:
            input_ids: int64 [B, 1] one character of every answer.
            question: [B, W] vectors of the questions.
            said: int64 [B] characters of the answers up to these.

        Returns:
            [B, 1, D].
        """
        assert self.open_vocabulary is not None
        embeddings = self.embed_text(input_ids)[0]
        # An answer that is not guided is told at its beginning alone, which belongs to the prompt.
        if not self.config.guided_answers:
            return embeddings
        return embeddings + self.open_vocabulary.answer_step(question, said)[:, None]

    def _read_rows(self, input_ids: Tensor, new_mask: Tensor, record: CachedRows | None) -> EmbeddedText:
        """Read new tokens [B, n] of a model with characters, and the cached ones before them."""
        ids = input_ids.masked_fill((new_mask == 0) & (input_ids != self.config.image_token_id), 0)
        if record is not None:
            ids = torch.cat([record.input_ids.to(ids), ids], dim=1)
        return self.read_text(ids).last(input_ids.shape[1])

    def _copying_inputs(
        self,
        embeds: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        merged: MergedRows,
        read: EmbeddedText,
        rows: CachedRows,
    ) -> CopyingInputs:
        """Collect what `run_copying` needs.

        Args:
            embeds: [B, n, D] of the new tokens.
            attention_mask: [B, S] of cached and new tokens.
            position_ids: [B, n].
            merged: The new tokens.
            read: The text before merging.
            rows: Record of cached and new tokens.
        """
        assert embeds is not None
        assert attention_mask is not None
        assert position_ids is not None
        assert rows.cells is not None
        assert rows.copying is not None
        is_real = merged.token_index >= 0
        index = merged.token_index.clamp(min=0)
        step = read.step.gather(1, index)
        turn = read.turn.gather(1, index)
        belief: Tensor | None = None
        if merged.beginnings is not None and self.answer_finder is not None:
            belief = self.answer_finder.belief(merged.beginnings[..., :-1])
        return CopyingInputs(
            embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            ids=merged.input_ids,
            in_answer=(step > 1) & is_real,
            is_real=is_real,
            cells=rows.cells,
            questions=read.questions.gather(1, turn[..., None].expand(-1, -1, read.questions.shape[2])),
            copying=rows.copying,
            begins=(step == 1) & is_real,
            turn=turn,
            belief=belief,
            # Not detached: where a whole model is fine-tuned, nothing else teaches the finder where answers end.
            endings=merged.endings,
            tell_end=None if self.answer_finder is None else self.answer_finder.tell_end,
        )
