"""What decoding keeps of answers beside keys and values, in a model with characters: one row for every answer.

The rows are those of the `SlotCache`. They join and leave in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slime_vlm.model.answer_finder import NOWHERE
from slime_vlm.model.copying import Copying
from slime_vlm.model.copying_run import CopyingRun
from slime_vlm.model.merged_prompt import MergedPrompt

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration


@dataclass
class AnswerState:
    """B answers. Of their tokens, the L local ones are known here: no other has characters to copy.

    Attributes:
        question: [B, W] vectors of the questions.
        columns: int64 [B, L] where the local tokens are in the cache, 0 in padding.
        cells: int64 [B, L] their cells, -1 in padding. L is 1 at least.
        copying: What they copy from, `places` [B, L, K]. None without a copy output.
        sizes: Numbers of local tokens and of cells of every row, without padding.
    """

    question: Tensor
    columns: Tensor
    cells: Tensor
    copying: Copying | None
    sizes: list[tuple[int, int]]

    @staticmethod
    def of(prompt: MergedPrompt, run: CopyingRun | None) -> AnswerState | None:
        """Return the state after a prompt, given its last run if the model copies. None without characters."""
        if prompt.question is None:
            return None
        if run is None:
            none = prompt.rows.input_ids.new_zeros(1, 1)
            return AnswerState(prompt.question, none, none - 1, None, [(1, 1)])
        assert prompt.copying is not None
        cells, copying = prompt.copying.cells, run.copying
        columns = (cells >= 0).any(dim=0).nonzero()[:, 0]
        # One at least, so that there is something to look up.
        columns = columns if len(columns) else columns.new_zeros(1)
        places = None if copying.places is None else copying.places[:, columns]
        size = (len(columns), copying.page.shape[1])
        # The finder is asked where an answer begins, and never again.
        copying = replace(copying, places=places, shown=None)
        return AnswerState(prompt.question, columns[None], cells[:, columns], copying, [size])

    @property
    def num_rows(self) -> int:
        """Number B of rows."""
        return len(self.sizes)

    def followed_by(self, other: AnswerState) -> AnswerState:
        """Return these rows with others behind them."""
        sizes = [*self.sizes, *other.sizes]
        one, two = self._padded(sizes), other._padded(sizes)
        copying = None
        if one.copying is not None and two.copying is not None:
            copying = _joined(one.copying, two.copying)
        return AnswerState(
            torch.cat([one.question, two.question]),
            torch.cat([one.columns, two.columns]),
            torch.cat([one.cells, two.cells]),
            copying,
            sizes,
        )

    def without(self, row: int) -> AnswerState | None:
        """Return the rows without one, whose place the last takes. None if no row is left."""
        if self.num_rows == 1:
            return None
        order = [*range(self.num_rows - 1)]
        if row < len(order):
            order[row] = self.num_rows - 1
        index = torch.tensor(order, device=self.cells.device)
        chosen = self._map(lambda rows: rows.index_select(0, index))
        chosen.sizes = [self.sizes[number] for number in order]
        return chosen._padded(chosen.sizes)

    def say(self, model: SlimeForConditionalGeneration, said: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Take the last token of every answer, and find where it was copied from.

        Args:
            model: The model.
            said: int64 [B] the tokens.
            count: int64 [B] how many tokens every answer has by now.

        Returns:
            The embeddings of the tokens [B, 1, D], and the characters that follow them on the page, int64 [B].
        """
        network = model.model
        embeddings = network.embed_answer(said[:, None], self.question, count)
        follows = torch.zeros_like(said)
        if self.copying is not None:
            assert network.copy_output is not None
            assert network.open_vocabulary is not None
            real = torch.ones_like(said, dtype=torch.bool)
            self.copying, follows = self.copying.say(said, real, real, self.cells, network.open_vocabulary.space)
            embeddings = embeddings + network.copy_output.told(follows)[:, None]
            if network.answer_finder is not None:
                embeddings = embeddings + network.answer_finder.tell_end(self.copying.ending())[:, None]
        return embeddings, follows

    def note(self, model: SlimeForConditionalGeneration, hidden: Tensor, pointing: Tensor) -> None:
        """Note where the last token of every answer points.

        Args:
            model: The model.
            hidden: [B, D] its hidden state.
            pointing: [B, L], see `pointing`.
        """
        network = model.model
        assert self.copying is not None
        assert network.copy_output is not None
        assert network.open_vocabulary is not None
        real = torch.ones_like(self.cells[:, 0], dtype=torch.bool)
        self.copying = self.copying.pointed(
            network.copy_output,
            hidden,
            model.logits_of(hidden).float(),
            pointing,
            real,
            self.cells,
            network.open_vocabulary.space,
        )

    def mixed(self, model: SlimeForConditionalGeneration, hidden: Tensor, pointing: Tensor, follows: Tensor) -> Tensor:
        """Return the logits [B, vocabulary] of the copy output.

        Args:
            model: The model.
            hidden: [B, D] hidden states of the last tokens.
            pointing: [B, L], see `pointing`.
            follows: int64 [B] characters that follow the last tokens.
        """
        assert self.copying is not None
        assert model.model.copy_output is not None
        logits: Tensor = model.model.copy_output(
            hidden, model.logits_of(hidden).float(), pointing, self.copying.held(self.cells), follows
        )
        return logits

    def local(self, values: Tensor) -> Tensor:
        """Return those of the local tokens [B, L] among values of all tokens [B, S]."""
        return values.float().gather(1, self.columns)

    def pointing(self, model: SlimeForConditionalGeneration, looked: Tensor) -> Tensor:
        """Return how much the local tokens are pointed at, [B, L], as `run_copying` has it.

        Args:
            model: The model.
            looked: [B, S] attention of the pointing heads to all tokens of the cache.
        """
        assert self.copying is not None
        assert model.model.copy_output is not None
        linked, own, local = self.copying.likeness(self.question[:, None].float(), self.cells)
        found: Tensor = model.model.copy_output.liken(self.local(looked), linked[:, 0], own[:, 0], local[:, 0])
        return found

    def _map(self, change: Callable[[Tensor], Tensor]) -> AnswerState:
        copying = None if self.copying is None else self.copying.map(change)
        return AnswerState(change(self.question), change(self.columns), change(self.cells), copying, self.sizes)

    def _padded(self, sizes: list[tuple[int, int]]) -> AnswerState:
        """Lengthen or shorten the rows to the largest of some sizes."""
        num_local, num_cells = (max(values) for values in zip(*sizes, strict=True))
        copying = self.copying
        if copying is not None:
            slots = copying.page.shape[2]
            copying = replace(
                copying,
                page=_resized(copying.page, num_cells, 0),
                following=_resized(copying.following, num_cells * slots, -1),
                words=_resized(copying.words, num_cells, 0),
                own_words=_resized(copying.own_words, num_cells, 0),
                places=None if copying.places is None else _resized(copying.places, num_local, 0),
                ends=None if copying.ends is None else _resized(copying.ends, num_cells, NOWHERE),
            )
        columns, cells = _resized(self.columns, num_local, 0), _resized(self.cells, num_local, -1)
        return AnswerState(self.question, columns, cells, copying, self.sizes)


def _joined(one: Copying, two: Copying) -> Copying:
    # A prompt ends with the token that begins its answer, so it is known where that points.
    assert one.places is not None
    assert two.places is not None
    assert one.wrote_space is not None
    assert two.wrote_space is not None
    return Copying(
        page=torch.cat([one.page, two.page]),
        following=torch.cat([one.following, two.following]),
        words=torch.cat([one.words, two.words]),
        own_words=torch.cat([one.own_words, two.own_words]),
        location=torch.cat([one.location, two.location]),
        places=torch.cat([one.places, two.places]),
        wrote_space=torch.cat([one.wrote_space, two.wrote_space]),
        has_images=one.has_images or two.has_images,
        ends=None if one.ends is None or two.ends is None else torch.cat([one.ends, two.ends]),
    )


def _resized(rows: Tensor, length: int, value: float) -> Tensor:
    """Pad rows [B, n, ...] to a length, or cut them."""
    missing = length - rows.shape[1]
    if missing <= 0:
        return rows[:, :length]
    return torch.cat([rows, rows.new_full((len(rows), missing, *rows.shape[2:]), value)], dim=1)
