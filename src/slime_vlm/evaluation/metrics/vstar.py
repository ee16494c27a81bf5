"""The letter that an answer states, by lmms-eval's rule for V* Bench."""

from __future__ import annotations

import re

# At the start, after a phrase, in parentheses, before a mark, alone. The first form that occurs decides, and of it the
# first place. Words count in any case: `a dog` states option A.
_FORMS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^([A-D])",
        r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*[.)\]]",
        r"(?:^|\s)([A-D])(?:\s|$)",
    )
)


def vstar_letter(prediction: str) -> str | None:
    """Return the letter A to D that an answer states, or None. A single letter anywhere counts as a last resort."""
    text = prediction.strip().upper()
    for form in _FORMS:
        found = form.search(text)
        if found:
            return found[1].upper()
    letters = re.findall("[A-D]", text)
    return letters[0] if len(letters) == 1 else None
