"""Answers that must hold a text: OCRBench, and MM-Vet's markers where no judge is at hand."""

from __future__ import annotations

from collections.abc import Sequence

# Full-width forms of ASCII, which Chinese text has, to ASCII.
_HALF_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}


def ocr_match(prediction: str, answers: Sequence[str], *, formula: bool = False) -> float:
    """1.0 when an accepted answer is part of the prediction.

    Args:
        prediction: the answer as given.
        answers: accepted answers.
        formula: of handwritten formulas case counts and blanks do not; of all else it is the other way round.
    """

    def plain(text: str) -> str:
        text = text.strip().replace("\n", " ").translate(_HALF_WIDTH)
        return text.replace(" ", "") if formula else text.lower()

    return float(any(plain(answer) in plain(prediction) for answer in answers))


def marked_match(prediction: str, answer: str) -> float:
    """Share of the `<AND>` parts of the best `<OR>` part that the prediction holds; case is ignored."""
    given = prediction.lower()
    shares = []
    for variant in answer.lower().split("<or>"):
        parts = [part.strip() for part in variant.split("<and>") if part.strip()]
        if parts:
            shares.append(sum(part in given for part in parts) / len(parts))
    return max(shares, default=0.0)
