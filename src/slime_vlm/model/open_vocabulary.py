"""What the characters that local tokens name add to them, and what a question's characters add to its tokens.

Deviation: not in the paper. An option for small models that read pages whose words training has never seen. A local
token gets the whole words that it touches, the words beside and above it, and its place in its run of text. Similarity
of these words to those of the question selects tokens, as in the paper, and the language model sees both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slime_vlm.errors import ConfigError
from slime_vlm.model.cell_runs import LEAST, MOST, NUM_OFFSETS, NUM_SIZES, print_sizes, run_offsets
from slime_vlm.model.cell_words import Words, character_classes, words_of_cells
from slime_vlm.model.linker import Linker
from slime_vlm.model.word_embedding import QuestionVector, WordEmbedding, unit

_MARKS = ":="
_DIGITS = "0123456789"


class OpenVocabulary(nn.Module):
    """Words for local tokens and for questions.

    Args:
        characters: Characters of the ids 1, 2 and so on; with the space, ":", "=" and the digits in a row.
        dim: Width D of the language model.
        word_dim: Width W of words.
        buckets: Rows of the table of n-grams, a power of two.

    Raises:
        ConfigError: The characters lack one that is needed.
    """

    classes: Tensor

    def __init__(self, *, characters: str, dim: int, word_dim: int, buckets: int) -> None:
        super().__init__()
        if _DIGITS not in characters or any(mark not in characters for mark in _MARKS + " "):
            raise ConfigError("characters lack a space, ':', '=' or '0123456789' in a row; add them")
        self.characters = characters
        self.space = characters.index(" ") + 1
        self.marks = tuple(characters.index(mark) + 1 for mark in _MARKS)
        self.digits = (characters.index("0") + 1, characters.index("9") + 1)
        self.register_buffer("classes", character_classes(characters), persistent=False)
        self.word_embedding = WordEmbedding(buckets=buckets, dim=word_dim)
        self.question_vector = QuestionVector(dim=word_dim)
        self.linker = Linker(dim=dim, word_dim=word_dim)
        self.words_in = nn.Linear(word_dim, dim, bias=False)
        self.linked_in = nn.Linear(word_dim, dim, bias=False)
        self.offsets = nn.Embedding(NUM_OFFSETS, dim)
        self.sizes = nn.Embedding(NUM_SIZES, dim)
        self.question_type = nn.Parameter(torch.zeros(dim))

    def shown(self, ids: Tensor) -> Tensor:
        """Return which cells show more than spaces: [..., S] -> bool [...]."""
        return ((ids != 0) & (ids != self.space)).any(dim=-1)

    def run_begins(self, ids: Tensor) -> Tensor:
        """Return in which cells a run of text begins, bool [..., R, C]."""
        return run_offsets(ids, self.space, self.marks, self.digits) <= -LEAST

    def own_words(self, ids: Tensor) -> Tensor:
        """Return the unit vectors [..., R, C, W] of the words that cells touch, 0 for cells without words."""
        found = words_of_cells(ids, self.classes, self.word_embedding.buckets)
        return unit(self.word_embedding.of_cells(found, ids[..., 0].numel()).view(*ids.shape[:-1], -1))

    def forward(self, tokens: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add to the local tokens of pages what their characters tell.

        Args:
            tokens: [B, R, C, D] local tokens in the order of the page.
            ids: int64 [B, R, C, S] ids of the characters that each names in reading order, 0 for nothing.

        Returns:
            The tokens [B, R, C, D], the unit vectors of their linked words [B, R, C, W], for the selector, and what
            the linker knows of every cell [B, R, C, W]. Cells that show nothing keep their tokens and have vectors of
            0.
        """
        shown = self.shown(ids)
        found = words_of_cells(ids, self.classes, self.word_embedding.buckets)
        words = self.word_embedding.of_cells(found, shown.numel()).view(*shown.shape, -1)
        offsets = run_offsets(ids, self.space, self.marks, self.digits)
        # Most cells of a page are empty, so only the others are worked on.
        added = self.words_in(words[shown]) + self.offsets(offsets[shown])
        added = added + self.sizes(print_sizes(ids, self.space)[shown])
        at = shown.nonzero(as_tuple=True)
        tokens = tokens.index_put(at, added, accumulate=True)
        linked, contexts = self.linker(tokens, words, shown, offsets <= -LEAST)
        near = unit(linked[shown])
        tokens = tokens.index_put(at, self.linked_in(near), accumulate=True)
        return tokens, torch.zeros_like(linked).index_put(at, near), contexts

    def question_words(self, words: Words) -> Tensor:
        """Embed words of questions, a row of zeros before them: [1 + W, word_dim]."""
        vectors = self.word_embedding(words)
        return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])

    def asked_words(self, words: Tensor, mask: Tensor) -> Tensor:
        """Return a question's words [..., S, W] times how much each tells, the most telling as unit vectors."""
        weighted = self.question_vector.weighted(words, mask)
        return weighted / weighted.norm(dim=-1, keepdim=True).amax(dim=-2, keepdim=True).clamp(min=1e-6)

    def word_tokens(self, words: Tensor) -> Tensor:
        """Return what the tokens of a question's words add to the language model's input: [..., W] -> [..., D]."""
        return self.words_in(words) + self.question_type

    def answer_step(self, question: Tensor, said: Tensor) -> Tensor:
        """Return what a token of an answer adds to the language model's input.

        Args:
            question: [..., W] the question's vector.
            said: int64 [...] characters of the answer so far, up to `cell_runs.MOST`. The same table tells a token how
                much of its run stands to its left.
        """
        return self.linked_in(question) + self.offsets(said.clamp(0, MOST) - LEAST)
