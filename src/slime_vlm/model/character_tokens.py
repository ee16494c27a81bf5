"""Text of a model whose tokens are single characters: which tokens are a question, its words, and an answer.

Deviation: not in the paper, see `open_vocabulary`. A question becomes one token a word, which the last character of the
word carries, and its other characters are dropped. Every token of an answer is told what is asked and how much has been
said. All of it follows from the ids of a row, so nothing has to be kept beside a cache but its ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from slime_vlm.errors import InputError
from slime_vlm.model.cell_words import BREAK, Words, find_words


@dataclass(frozen=True)
class CharacterTokens:
    """Ids of the tokens. 0 is padding, 1 to `count` are characters in the order of `SlimeConfig.characters`.

    Attributes:
        count: Number of characters.
    """

    count: int

    @property
    def other(self) -> int:
        """Any other character."""
        return self.count + 1

    @property
    def begin(self) -> int:
        """The beginning of a text."""
        return self.count + 2

    @property
    def user(self) -> int:
        """The beginning of a question."""
        return self.count + 3

    @property
    def assistant(self) -> int:
        """The beginning of an answer."""
        return self.count + 4

    @property
    def end(self) -> int:
        """The end of an answer."""
        return self.count + 5

    @property
    def not_there(self) -> int:
        """The answer to what a page does not state, a single token."""
        return self.count + 6

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the language model knows. The image placeholder comes after them."""
        return self.count + 7


@dataclass
class CharacterText:
    """The questions and answers in rows of tokens [B, S].

    Attributes:
        dropped: bool [B, S] characters of questions that carry no word.
        word: int64 [B, S] 1 + index of the word that a token carries, 0 for none.
        turn: int64 [B, S] number of questions that have begun, up to and including the token; 0 among images.
        step: int64 [B, S] 1 + characters of the answer so far, from the token that begins it to its last character; 0
            for all others.
        words: The words of all questions, from row to row.
        row_of: int64 [W] row of every word.
        turn_of: int64 [W] its turn.
        word_of: int64 [B, S] 1 + index of the word that a token is a letter of, 0 for none.
    """

    dropped: Tensor
    word: Tensor
    turn: Tensor
    step: Tensor
    words: Words
    row_of: Tensor
    turn_of: Tensor
    word_of: Tensor

    def last(self, count: int) -> Self:
        """Return the same for the last columns alone. The words stay.

        Raises:
            InputError: They begin within a word of a question.
        """
        first = self.dropped.shape[1] - count
        before, after = self.word_of[:, :first], self.word_of[:, first:]
        if first and bool(((after == before.amax(dim=1, keepdim=True)) & (after > 0)).any()):
            raise InputError(
                "the cache ends within a word of a question, and a word is one token: pass a question whole, or the "
                "whole words that follow"
            )
        return replace(
            self,
            dropped=self.dropped[:, first:],
            word=self.word[:, first:],
            turn=self.turn[:, first:],
            step=self.step[:, first:],
            word_of=after,
        )

    def of_turns(self) -> Tensor:
        """Return the words of every turn of every row, [B, 1 + turns, words] 1 + index and 0 in padding."""
        turns = 1 + int(self.turn_of.max()) if len(self.turn_of) else 1
        group = self.row_of * turns + self.turn_of
        index = torch.arange(1, 1 + len(group), device=group.device)
        return padded_groups(group, index, len(self.dropped) * turns).unflatten(0, (-1, turns))


@dataclass
class EmbeddedText(CharacterText):
    """Rows of text whose words and questions are embedded.

    Attributes:
        word_vectors: [1 + W, width] of all words, a row of zeros before them.
        questions: [B, 1 + turns, width] of the questions of all turns, 0 for those without a word.
    """

    word_vectors: Tensor
    questions: Tensor

    def last_question(self) -> Tensor:
        """Return the vector [B, width] of the question of the last column of every row."""
        return self.questions[torch.arange(len(self.questions), device=self.turn.device), self.turn[:, -1]]


def padded_groups(group: Tensor, values: Tensor, count: int) -> Tensor:
    """Put values [W] side by side that belong to the same group [W], in ascending order: [count, most], padded by 0."""
    index = torch.arange(len(group), device=group.device)
    rank = index - torch.searchsorted(group, group)
    most = 1 + int(rank.max()) if len(rank) else 1
    return values.new_zeros(count, most).index_put((group, rank), values)


def read_text(input_ids: Tensor, tokens: CharacterTokens, classes: Tensor, buckets: int) -> CharacterText:
    """Find questions, their words, and answers in rows of tokens.

    Args:
        input_ids: int64 [B, S], padding 0. Ids from `tokens.vocabulary` on, such as image placeholders, end a word.
        tokens: The ids.
        classes: See `cell_words.character_classes`.
        buckets: See `cell_words.find_words`.
    """
    rows, length = input_ids.shape
    # Most columns hold image placeholders alone.
    column = (input_ids < tokens.vocabulary).any(dim=0).index_fill(0, input_ids.new_zeros(1), True).nonzero()[:, 0]
    ids = input_ids[:, column]
    index = torch.arange(len(column), device=ids.device).expand_as(ids)
    marks = torch.tensor([tokens.begin, tokens.user, tokens.assistant, tokens.end], device=ids.device)
    is_mark = torch.isin(ids, marks)
    since = index.masked_fill(~is_mark, -1).cummax(dim=1).values
    mark = ids.gather(1, since.clamp(min=0)).masked_fill(since < 0, 0)
    is_question = (mark == tokens.user) & (ids >= 1) & (ids <= tokens.other)
    turn = (ids == tokens.user).long().cumsum(dim=1)
    counted = ((ids != 0) & (ids < tokens.vocabulary)).long().cumsum(dim=1)
    is_answer = (mark == tokens.assistant) & (ids != 0) & (ids < tokens.vocabulary)
    step = (1 + counted - counted.gather(1, since.clamp(min=0))) * is_answer

    begins = torch.zeros_like(is_question)
    begins[:, 0] = True
    begins[:, 1:] = column[1:] - column[:-1] > 1
    spoken = torch.where(is_question, classes[ids.masked_fill(~is_question, 0)], BREAK).flatten()
    words = find_words(spoken, begins.flatten(), buckets)
    at = (words.word_of >= 0).nonzero()[:, 0]
    last = torch.ones_like(at, dtype=torch.bool)
    last[:-1] = words.word_of[at[1:]] != words.word_of[at[:-1]]
    carrier = at[last]
    word = torch.zeros_like(spoken)
    word[carrier] = 1 + words.word_of[carrier]
    word = word.view_as(ids)

    def spread(values: Tensor) -> Tensor:
        whole = values.new_zeros(rows, length)
        whole[:, column] = values
        return whole

    return CharacterText(
        dropped=spread(is_question & (word == 0)),
        word=spread(word),
        turn=spread(turn),
        step=spread(step),
        words=words,
        row_of=carrier.div(len(column), rounding_mode="floor"),
        turn_of=turn.flatten()[carrier],
        word_of=spread(1 + words.word_of.view_as(ids)),
    )
