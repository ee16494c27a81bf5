"""Match answers that must contain a text: OCRBench, and MM-Vet's markers without a judge."""

from __future__ import annotations

from collections.abc import Sequence

# Map the full-width forms of ASCII in Chinese text to ASCII.
_HALF_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}


def ocr_match(prediction: str, answers: Sequence[str], *, formula: bool = False, fold: bool = False) -> float:
    """Return 1.0 if an accepted answer is part of the prediction, else 0.0.

    Args:
        prediction: The answer.
        answers: Accepted answers.
        formula: Compare with case and without blanks, as for handwritten formulas. Other texts are compared without
            case and with blanks.
        fold: Take full-width letters, digits and marks for their usual forms in texts that are no formulas, as
            lmms-eval does. The authors' script does not.
    """

    def plain(text: str) -> str:
        if formula:
            return text.strip().replace("\n", " ").replace(" ", "")
        return (text.translate(_HALF_WIDTH) if fold else text).lower().strip().replace("\n", " ")

    return float(any(plain(answer) in plain(prediction) for answer in answers))


def marked_match(prediction: str, answer: str) -> float:
    """Return the share of the `<AND>` parts of the best `<OR>` part that the prediction contains, ignoring case."""
    given = prediction.lower()
    shares = []
    for variant in answer.lower().split("<or>"):
        parts = [part.strip() for part in variant.split("<and>") if part.strip()]
        if parts:
            shares.append(sum(part in given for part in parts) / len(parts))
    return max(shares, default=0.0)
