"""Compare texts for equality."""

from __future__ import annotations

import string

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, answer: str) -> float:
    """Return 1.0 if both texts are equal after folding white space, else 0.0. Case counts."""
    return float(" ".join(prediction.split()) == " ".join(answer.split()))


def gqa_match(prediction: str, answer: str) -> float:
    """Return 1.0 if both texts are equal in lower case without ASCII punctuation, else 0.0.

    The official pipeline only removes a final period. The results differ for predictions with other punctuation. GQA's
    own answers have none.
    """

    def plain(text: str) -> str:
        return text.lower().translate(_WITHOUT_PUNCTUATION).strip()

    return float(plain(prediction) == plain(answer))
