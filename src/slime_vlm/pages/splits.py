"""The split rules of typeset and browser-laid pages: what training may see, and what is held out. All of them are here.

| what | rule |
|---|---|
| template | marked at its definition (`template(..., heldout=True)`); a third of every kind, held out whole |
| font | by package in `browser/fonts.tsv`; clones of one design share a publisher, and so a split |
| publisher of PDFs | by package in `typeset/packages.tsv`; never by page |
| wording of a question | `heldout_wordings`: a fifth of the patterns of every family, of later ones a fifth by hash |
| whole question, sentence | a fifth by hash: `asking.is_heldout_question`, `sentences.sentences` |
| printed key | `is_heldout_key`: a fifth of the phrases, by a hash of the phrase in lower case |
| word of an invented key | `is_heldout_word`: a fifth of the dictionary |
| value | `values.is_heldout`: an eighth of the strings, as for the renderer |

A training page holds nothing that is held out. A held-out page holds held-out things only, with two exceptions: short
values of small range (a weekday, a whole number below 1,000) are shared, and so is filler text that no question asks
about.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from functools import cache

SPLITS = ("train", "heldout")

_SHARE = 5  # one key, word or wording in this many is held out


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def normal_key(phrase: str) -> str:
    """Return a key as splits and comparisons see it: lower case, letters and digits, single spaces."""
    return " ".join(re.sub(r"[^\w%#&/.'+-]+", " ", phrase.lower()).strip(" .:").split())


def is_heldout_word(word: str) -> bool:
    """Whether a dictionary word is held out; the two numbers of a noun go together."""
    stem = word.lower()
    return _hash(stem[:-1] if stem.endswith("s") else stem) % _SHARE == 0


def is_heldout_key(phrase: str) -> bool:
    """Whether a printed key is held out."""
    return _hash(normal_key(phrase)) % _SHARE == 0


def normal_wording(pattern: str) -> str:
    """Return a pattern as splits see it: lower case, without its end, so that "{k}" and "{k}?" go together."""
    return pattern.lower().rstrip("?. ")


@cache
def heldout_wordings() -> frozenset[str]:
    """Return the held-out patterns: a fifth of each family, at least one; a pattern of two families goes for both.

    The smallest hashes are held out, so that a family of four has one, too. Patterns that were added later are held out
    by their own hash alone, so that none changes its split. A bare key has no words of its own: training may use it.
    """
    from slime_vlm.pages.more_wordings import MORE_WORDINGS
    from slime_vlm.pages.typeset.wordings import TYPESET_WORDINGS
    from slime_vlm.pages.wordings import FIRST_WORDINGS

    first = (*FIRST_WORDINGS.values(), *TYPESET_WORDINGS.values())
    known = {normal_wording(pattern) for patterns in first for pattern in patterns}
    more = {normal_wording(pattern) for patterns in MORE_WORDINGS.values() for pattern in patterns}
    heldout = {pattern for pattern in more - known if _hash(pattern) % _SHARE == 0}
    for patterns in first:
        ranked = sorted({normal_wording(pattern) for pattern in patterns}, key=_hash)
        count = max(1, round(len(ranked) / _SHARE))
        heldout.update({*ranked[:count]} - {"{k}"} or {ranked[count]})
    return frozenset(heldout - {"{k}"})


def wordings_of(patterns: Sequence[str], split: str) -> list[str]:
    """Return the patterns of a family that a split may use."""
    heldout = heldout_wordings()
    return [pattern for pattern in patterns if (normal_wording(pattern) in heldout) == (split == "heldout")]


def choose_wording(rng: random.Random, patterns: Sequence[str], split: str) -> str | None:
    """Draw a pattern of a family that the split may use; None when it may use none."""
    allowed = wordings_of(patterns, split)
    return rng.choice(allowed) if allowed else None
