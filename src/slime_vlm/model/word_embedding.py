"""Embeddings of words by their n-grams, for the words of questions and of pages alike, and the vector of a question.

Deviation: not in the paper, see `cell_words`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slime_vlm.errors import ConfigError
from slime_vlm.model.cell_words import CellWords, Words


class WordEmbedding(nn.Module):
    """A unit vector for any word: the sum of the embeddings of its n-grams, and a small learned correction of it.

    Untrained, words that share most of their spelling are already close: a plural, a misread letter.

    Args:
        buckets: Rows of the table, a power of two. n-grams share rows by their hash.
        dim: Width W of a word.

    Raises:
        ConfigError: The number of buckets is not a power of two.
    """

    def __init__(self, *, buckets: int, dim: int) -> None:
        super().__init__()
        if buckets < 2 or buckets & (buckets - 1) or buckets > 2**24:
            raise ConfigError(f"word_buckets is {buckets}, expected a power of two up to {2**24}")
        self.buckets = buckets
        self.table = nn.Embedding(buckets, dim)
        self.correction = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.correction.weight, std=0.3 * dim**-0.5)

    def forward(self, words: Words) -> Tensor:
        """Embed words: [W, dim], unit vectors."""
        if not len(words):
            return self.table.weight.new_zeros(0, self.table.embedding_dim)
        mean = F.embedding_bag(words.grams, self.table.weight, words.starts, mode="sum")
        sizes = torch.diff(words.starts, append=words.starts.new_tensor([len(words.grams)]))
        mean = mean / sizes[:, None].sqrt().to(mean.dtype)
        return F.normalize(mean + self.correction(mean), dim=-1)

    def of_cells(self, found: CellWords, cells: int) -> Tensor:
        """Sum the words that every cell touches: [cells, dim], 0 for a cell without words."""
        vectors = self(found.words)
        summed = vectors.new_zeros(cells, vectors.shape[-1])
        return summed.index_add(0, found.cells, vectors[found.word])


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., W] of length 1; those of 0 stay, in float16, too, where the least length rounds to 0."""
    return F.normalize(vectors.float(), dim=-1).to(vectors)


class QuestionVector(nn.Module):
    """The mean of a question's words, weighted by how much a word tells: "total" more than "the".

    Args:
        dim: Width W of a word.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.constant_(self.weight.bias, 0.5)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Return unit vectors [..., W] for words [..., S, W] and their mask [..., S]; 0 without words."""
        return unit(self.weighted(words, mask).sum(dim=-2))

    def weighted(self, words: Tensor, mask: Tensor) -> Tensor:
        """Return words [..., S, W] times their weights, 0 where the mask [..., S] is False."""
        return words * F.softplus(self.weight(words)) * mask[..., None]
