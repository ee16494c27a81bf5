"""Equality of texts."""

from __future__ import annotations

import string

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, answer: str) -> float:
    """1.0 when both texts are equal after folding white space; case counts."""
    return float(" ".join(prediction.split()) == " ".join(answer.split()))


def gqa_match(prediction: str, answer: str) -> float:
    """1.0 when both texts are equal in lower case without ASCII punctuation.

    The official pipeline takes off a final period alone, which differs on answers with other punctuation; GQA's own
    answers have none.
    """

    def plain(text: str) -> str:
        return text.lower().translate(_WITHOUT_PUNCTUATION).strip()

    return float(plain(prediction) == plain(answer))
