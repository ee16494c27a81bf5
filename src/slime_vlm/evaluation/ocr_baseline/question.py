"""Parse a question: the words of it that may be printed on a page, and the type of its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from slime_vlm.evaluation.ocr_baseline.boxes import TextBox


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOP = _words(
    "a an and are at be by can come cost costs did do does find for from get give given has have how i in is it its "
    "may me much many of on one or owe page pay please read say says see show shows tell that the there this to "
    "was were what when where which who whom whose why written will with you your here chart table live people"
)
# Words that questions add to a key, and that keys seldom contain.
WEAK = _words("amount due number name value price label text population length patient side date time sum total id")
_WEAK_WEIGHT = 0.3
_SAME = {
    "acct": "account",
    "amt": "amount",
    "arrive": "arrival",
    "arrives": "arrival",
    "born": "birth",
    "delivered": "delivery",
    "deliv": "delivery",
    "disc": "discount",
    "dob": "birth",
    "dr": "doctor",
    "ends": "end",
    "exp": "expiry",
    "expire": "expiry",
    "expires": "expiry",
    "heavy": "weight",
    "inv": "invoice",
    "invoiced": "invoice",
    "issued": "issue",
    "licence": "license",
    "no": "number",
    "nr": "number",
    "num": "number",
    "ordered": "order",
    "press": "pressure",
    "prod": "product",
    "qty": "quantity",
    "ref": "reference",
    "serv": "service",
    "sold": "seller",
    "starts": "start",
    "tall": "height",
    "tel": "phone",
    "temp": "temperature",
    "vol": "volume",
    "warm": "temperature",
    "wt": "weight",
}
_LIKENESS = 80
_SHORTEST_ABBREVIATION = 3

_WRONG_KIND = 8.0
_MONEY = re.compile(r"^[$€£]?\s?\d[\d,]*\.\d\d$")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}|\b[A-Za-z]{3}\b.*\d|\d.*\b[A-Za-z]{3}\b|^\d\d:\d\d$")


@dataclass(frozen=True)
class Wanted:
    """A parsed question.

    Attributes:
        words: The words that name something.
        kind: Type of the answer: "money", "date", "number", "name", or "" for any.
        extreme: "highest", "lowest" or "".
    """

    words: tuple[str, ...]
    kind: str
    extreme: str

    def covered_by(self, words: Sequence[str]) -> float:
        """Return the share of the question's words that are among `words`. Weak words count little."""
        return _share(self.words, words)

    def misfit(self, text: str) -> float:
        """Return a text's cost as the answer: 0, 1 for another format, `_WRONG_KIND` for wrong or missing digits."""
        digit = any(character.isdigit() for character in text)
        if self.kind == "":
            return float(not digit)
        if digit == (self.kind == "name"):
            return _WRONG_KIND
        formats = {"money": _MONEY, "date": _DATE}
        return float(self.kind in formats and formats[self.kind].search(text.strip()) is None)


def understand(question: str) -> Wanted:
    """Parse a question."""
    plain = re.findall(r"[a-z]+|#", question.lower())
    extreme = next((word for word in ("highest", "lowest") if word in plain), "")
    named = [word for word in ("due",) if {"owe", "pay"} & set(plain)]
    words = [*(word for word in plain if word not in _STOP), *named]
    starts = " ".join(plain)
    kind = ""
    if "when" in plain or "date" in plain or "day" in plain or "time" in plain:
        kind = "date"
    elif starts.startswith("how much") or {"price", "cost", "amount"} & set(plain):
        kind = "money"
    elif starts.startswith(("how many", "how high", "how long", "how tall", "how heavy", "how far")) or (
        {"value", "length", "population"} & set(plain)
    ):
        kind = "number"
    elif "who" in plain or "name" in plain:
        kind = "name"
    return Wanted(tuple(dict.fromkeys(words)), kind, extreme)


def words_of(box: TextBox) -> list[str]:
    """Return the words of a printed text that may name something."""
    found = re.findall(r"[a-z]+|#", box.text.lower().replace("s/n", "serial number"))
    return ["number" if word == "#" else word for word in found if word not in _STOP]


def alike(asked: str, printed: str) -> bool:
    """Return whether a word of a question is the printed one, which may be abbreviated, plural or off by a letter."""
    one, other = _SAME.get(asked, asked), _SAME.get(printed, printed)
    if one == other or one.rstrip("s") == other.rstrip("s"):
        return True
    if len(other) >= _SHORTEST_ABBREVIATION and one.startswith(other):
        return True
    return min(len(one), len(other)) >= 4 and fuzz.ratio(one, other) >= _LIKENESS


def key_score(wanted: Wanted, box: TextBox) -> float:
    """Return how well a printed text matches the question, 0 to 1: the harmonic mean of both shares of words."""
    words = words_of(box)
    if not words:
        return 0.0
    asked, covered = _share(words, wanted.words), wanted.covered_by(words)
    return 2 * asked * covered / (asked + covered) if asked and covered else 0.0


def _share(words: Sequence[str], others: Sequence[str]) -> float:
    weights = [_WEAK_WEIGHT if word in WEAK else 1.0 for word in words]
    found = [any(alike(word, other) or alike(other, word) for other in others) for word in words]
    return sum(weight for weight, hit in zip(weights, found, strict=True) if hit) / sum(weights) if weights else 0.0
