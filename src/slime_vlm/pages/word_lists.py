"""Dictionary words, invented words and names, divided between training and evaluation by `splits`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from slime_vlm.pages.splits import is_heldout_word


def listed(text: str, separator: str | None = None) -> list[str]:
    """Return the items of a list that is written as one string, separated by blanks or by `separator`."""
    return [item.strip() for item in text.split(separator)]


_ONSETS = listed("b bl br c ch cl cr d dr f fl fr g gl gr h j k kn l m n p pl pr qu r s sc sh sl sp st t th tr v w z")
_NUCLEI = listed("a e i o u a e i o ai ea ee oa oo ou ie y")
_CODAS = ["", "", "", *listed("b ck d ft g l ll m n nd ng nt p r rd rn rt s sh sk ss st t x")]
_ENDINGS = ["", "", "", *listed("er ing ion ia o um is el al en or ine ura ex")]


def invented_word(rng: random.Random) -> str:
    """Make up a word of one to three syllables."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(syllables))
    return (word + rng.choice(_ENDINGS))[:12]


@lru_cache(maxsize=4)
def read_words(path: Path | None) -> tuple[str, ...]:
    """Read the lower-case ASCII words of 3 to 12 letters of a word list; without one, make up 4,000 words."""
    if path is None:
        rng = random.Random(18)
        return tuple(sorted({invented_word(rng) for _ in range(4000)}))
    words = set(path.read_text(encoding="utf-8").split())
    return tuple(sorted(w for w in words if 3 <= len(w) <= 12 and w.isascii() and w.isalpha() and w.islower()))


class Words:
    """Words of one split."""

    def __init__(self, listed: Sequence[str], split: str) -> None:
        """Args: the whole word list, and "train" or "heldout"."""
        self.split = split
        self.words = [word for word in listed if is_heldout_word(word) == (split == "heldout")]

    def word(self, rng: random.Random) -> str:
        """Draw a word: nine in ten from the list, the others made up."""
        while rng.random() < 0.1:
            word = invented_word(rng)
            if is_heldout_word(word) == (self.split == "heldout"):
                return word
        return rng.choice(self.words)

    def phrase(self, rng: random.Random, shares: Sequence[float] = (0.45, 0.4, 0.15)) -> str:
        """Draw one, two or three words in these shares."""
        count = rng.choices(range(1, len(shares) + 1), shares)[0]
        return " ".join(self.word(rng) for _ in range(count))
