"""Where the answers of a batch copy from: what decoding has to know beside the cache for the copy output.

Deviation: not in the paper, see `copy_output`. A character of an answer is taken to stand where the one before it is
followed by it on the page, and otherwise where the copy output pointed. The next token is told what follows there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.answer_finder import NOWHERE, FinderCells
from slime_vlm.model.copy_output import CopyOutput


@dataclass
class Copying:
    """The pages of the rows of a batch, and where their answers are. P cells hold K characters each.

    Attributes:
        page: int64 [B, P, K] ids of the characters of all cells of a row's images, 0 for nothing.
        following: int64 [B, P * K] place of the character after each one, -1 for none.
        words: [B, P, W] unit vectors of the linked words of these cells, 0 for those that show nothing.
        own_words: [B, P, W] the same of the words that they touch.
        location: int64 [B] place of the last token, -1 where it was not copied.
        places: float [B, S, K] how much every character of S tokens was pointed at by the last token. None if that is
            not known, as after cropping a cache.
        wrote_space: bool [B] whether a space after the last token would be written rather than copied: it then stands
            between two lines, and nothing follows it.
        has_images: Whether there is an image. Without one, P is 1 and the page empty.
        shown: What an answer finder has to know of the cells. None without one.
        ends: [B, P] its log-probabilities that the answer which a row is in ends in a cell. None before any answer.
    """

    page: Tensor
    following: Tensor
    words: Tensor
    own_words: Tensor
    location: Tensor
    places: Tensor | None = None
    wrote_space: Tensor | None = None
    has_images: bool = True
    shown: FinderCells | None = None
    ends: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Copying:
        """Change the rows of all tensors."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        changed: dict[str, Any] = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
        if self.shown is not None:
            changed["shown"] = self.shown.map(change)
        return replace(self, **changed)

    def forgotten(self, cells: Tensor) -> Copying:
        """Return the same without what is known of the last token, for rows that hold only some cells [B, S] now."""
        shown = self.shown
        if shown is not None:
            # -1 stands for tokens without a cell.
            held = F.one_hot(cells + 1, shown.kept.shape[1] + 1).amax(dim=1)[:, 1:]
            shown = replace(shown, kept=shown.kept & held.bool())
        return replace(
            self, location=torch.full_like(self.location, -1), places=None, wrote_space=None, shown=shown, ends=None
        )

    def followed_by(self, new: Copying) -> Copying:
        """Return the same with the pages of further images behind these."""
        if not new.has_images:
            return self
        moved = torch.where(new.following < 0, new.following, new.following + self.following.shape[1])
        return replace(
            self,
            page=torch.cat([self.page, new.page], dim=1),
            following=torch.cat([self.following, moved], dim=1),
            words=torch.cat([self.words, new.words], dim=1),
            own_words=torch.cat([self.own_words, new.own_words], dim=1),
            has_images=True,
            shown=None if self.shown is None or new.shown is None else self.shown.followed_by(new.shown),
            ends=None if self.ends is None else F.pad(self.ends, (0, new.page.shape[1]), value=NOWHERE),
        )

    def most_similar(self, questions: Tensor, known: Tensor) -> Tensor:
        """Return the largest cosine of a cell to every question.

        Args:
            questions: [B, T, W] vectors of questions.
            known: int64 [B, T] how many cells of the row came before each.

        Returns:
            [B, T], -1 for an empty page.
        """
        cosines = questions @ self.words.to(questions).transpose(1, 2)
        comes = torch.arange(self.words.shape[1], device=known.device) < known[..., None]
        shown = (self.words != 0).any(dim=-1)[:, None] & comes
        return cosines.masked_fill(~shown, -1.0).amax(dim=-1)

    def likeness(self, questions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `CopyOutput.liken` takes beside attention.

        Args:
            questions: [B, n, W] vectors of what is asked.
            cells: int64 [B, S] cells of tokens, -1 for those that are not local.

        Returns:
            [B, n, S] each: linked words, own words, and which tokens are local.
        """
        index = cells.clamp(min=0)[..., None].expand(-1, -1, self.words.shape[-1])
        linked, own = (
            questions @ words.gather(1, index).to(questions).transpose(1, 2) for words in (self.words, self.own_words)
        )
        return linked, own, (cells >= 0)[:, None].expand_as(linked)

    def held(self, cells: Tensor) -> Tensor:
        """Return the characters [B, S, K] of tokens by their cells [B, S], -1 for none."""
        found = self.page.gather(1, cells.clamp(min=0)[..., None].expand(-1, -1, self.page.shape[2]))
        return found.masked_fill((cells < 0)[..., None], 0)

    def ending(self) -> Tensor:
        """Return the log-probabilities [B] that answers end in the cell of their last character, -inf without one."""
        if self.ends is None:
            return torch.full(self.location.shape, -torch.inf, device=self.location.device)
        cell = self.location.div(self.page.shape[2], rounding_mode="floor")
        return _at(self.ends, cell, -torch.inf)

    def say(
        self, said: Tensor, in_answer: Tensor, is_real: Tensor, cells: Tensor, space: int
    ) -> tuple[Copying, Tensor]:
        """Find where the next token of every row was copied from.

        Args:
            said: int64 [B] the token.
            in_answer: bool [B] whether it is a character of an answer.
            is_real: bool [B] False in padding, which changes nothing.
            cells: int64 [B, S] cells of the tokens before it.
            space: Id of the space.

        Returns:
            The state after it, and the character that follows it on the page, int64 [B], 0 for none.

        Raises:
            InputError: Nothing is known of the token before it.
        """
        if self.places is None or self.wrote_space is None:
            raise InputError(
                "the cache ends within an answer and was cropped or filled elsewhere, so where the answer was copied "
                "from is not known: pass the whole prompt without a cache"
            )
        after = _at(self.following, self.location, -1)
        goes_on = (_at(self.page.flatten(1), after, 0) == said) & (after >= 0)
        shows = self.held(cells) == said[:, None, None]
        best = self.places.masked_fill(~shows, -1.0).flatten(1).argmax(dim=1)
        slots = self.page.shape[2]
        pointed = cells.gather(1, best[:, None] // slots)[:, 0] * slots + best % slots
        copied = shows.flatten(1).any(dim=1) & (said > 0) & ~(self.wrote_space & (said == space))
        location = torch.where(goes_on, after, pointed.masked_fill(~copied, -1)).masked_fill(~in_answer, -1)
        location = torch.where(is_real, location, self.location)
        follows = _at(self.page.flatten(1), _at(self.following, location, -1), 0)
        return replace(self, location=location), follows.masked_fill(~(in_answer & is_real), 0)

    def pointed(
        self,
        output: CopyOutput,
        hidden: Tensor,
        logits: Tensor,
        attention: Tensor,
        is_real: Tensor,
        cells: Tensor,
        space: int,
    ) -> Copying:
        """Note where the last token of every row pointed.

        Args:
            output: The copy output.
            hidden: [B, D] its hidden state.
            logits: [B, V] of the language model there.
            attention: [B, S] of the pointing heads.
            is_real: bool [B] False for rows that have no new token.
            cells: int64 [B, S].
            space: Id of the space.
        """
        places = output.places(hidden, attention)
        copied = places.masked_fill(self.held(cells) != space, 0.0).flatten(1).sum(dim=1)
        gate = output.gate(hidden)[:, :2].softmax(dim=-1)
        wrote = gate[:, 0] * logits.softmax(dim=-1)[:, space] > gate[:, 1] * copied
        if self.places is not None and self.wrote_space is not None:
            before = F.pad(self.places, (0, 0, 0, places.shape[1] - self.places.shape[1]))
            places = torch.where(is_real[:, None, None], places, before)
            wrote = torch.where(is_real, wrote, self.wrote_space)
        return replace(self, places=places, wrote_space=wrote)


def _at(values: Tensor, index: Tensor, none: float) -> Tensor:
    """Return one value [B] of every row [B, n], `none` where the index is below 0."""
    return values.gather(1, index.clamp(min=0)[:, None])[:, 0].masked_fill(index < 0, none)
