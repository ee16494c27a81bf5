"""Compare texts for equality."""

from __future__ import annotations

import string

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, answer: str) -> float:
    """Return 1.0 if both texts are equal after folding white space, else 0.0. Case counts."""
    return float(" ".join(prediction.split()) == " ".join(answer.split()))


def gqa_match(prediction: str, answer: str) -> float:
    """Return 1.0 if the prediction in lower case and without final periods equals the answer, else 0.0.

    This is what LLaVA's converter and GQA's own script do together. The answer is compared as it is.
    """
    return float(prediction.rstrip(".").lower() == answer)


def gqa_match_lmms_eval(prediction: str, answer: str) -> float:
    """Return 1.0 if both texts are equal in lower case without ASCII punctuation, else 0.0, as lmms-eval does."""

    def plain(text: str) -> str:
        return text.lower().translate(_WITHOUT_PUNCTUATION)

    return float(plain(prediction) == plain(answer))
