"""Sentences in running text that state something, with questions about it; a fifth are held out whole."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slime_vlm.pages.word_lists import Words, listed

_FILE = Path(__file__).with_name("sentences.txt")
_PIECE = re.compile(r"\[\*\]|\[([^\]]+)\]|\{(\w+)\}|<(\w+)>")
_SHARE = 5


@dataclass(frozen=True)
class Sentence:
    """A sentence that states something.

    Attributes:
        area: Documents that it suits: "pay", "letter", "tech", "lab", "event", or "any".
        pieces: Role and text of each piece. Roles: "text", "key", "open" (an invented key), "extra" and "value"; the
            text of the last two is a kind of value.
        questions: Whole questions; none for an invented key.
        heldout: Whether it is held out.
    """

    area: str
    pieces: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    heldout: bool


def _pieces(text: str) -> tuple[tuple[str, str], ...]:
    pieces = []
    at = 0
    for match in _PIECE.finditer(text):
        if match.start() > at:
            pieces.append(("text", text[at : match.start()]))
        key, value, extra = match.groups()
        pieces.append(
            ("key", key) if key else ("value", value) if value else ("extra", extra) if extra else ("open", "")
        )
        at = match.end()
    if at < len(text):
        pieces.append(("text", text[at:]))
    return tuple(pieces)


@cache
def _by_area() -> dict[str, list[Sentence]]:
    lines: dict[str, list[tuple[str, str]]] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            area, text, questions = (part.strip() for part in line.split("|"))
            lines.setdefault(area, []).append((text, questions))
    areas = {}
    for area, entries in lines.items():
        ranked = sorted((text for text, _ in entries), key=lambda text: zlib.crc32(text.encode()))
        heldout = set(ranked[: max(1, round(len(ranked) / _SHARE))])
        areas[area] = [
            Sentence(area, _pieces(text), tuple(q for q in listed(questions, ";") if q), text in heldout)
            for text, questions in entries
        ]
    return areas


def sentences(split: str, area: str) -> tuple[Sentence, ...]:
    """Return the sentences of a split that suit an area, those for any included."""
    found = [*_by_area()[area], *(_by_area()["any"] if area != "any" else [])]
    return tuple(one for one in found if one.heldout == (split == "heldout"))


_OPENINGS = listed(
    "The;A;Our;Every;This;No;Some;Most of the;Many a;All the;Under the;Beside the;With a;Without the;After the", ";"
)
_VERBS = listed(
    "may differ from;is subject to;does not include;was part of;should be kept with;is described "
    "in;belongs to;comes with;"
    "replaces;is not meant for;can be found in;depends on;was added to;follows from;is the basis of",
    ";",
)
_STOCK = listed(
    "Errors and omissions excepted.;Please keep this document for your records.;Prices may change without notice.;"
    "This document was produced by computer and is valid without signature.;Subject to our general "
    "terms and conditions.;"
    "Please recycle.;All rights reserved.;Thank you for your business.;Thank you for your custom.;We appreciate it.;"
    "If you have any questions, please do not hesitate to contact us.;Goods remain the property of "
    "the seller until paid.;"
    "Photographs are for illustration only.;Please read the instructions on the back.;Terms "
    "apply.;See reverse for details.;"
    "We look forward to hearing from you.;Kindly check all entries.;Not valid with other "
    "offers.;Keep out of reach of children.;"
    "Do not write below this line.;For office use only.;Have a nice day!;No liability is "
    "accepted.;Sent from the front desk.",
    ";",
)


def filler(rng: random.Random, words: Words) -> str:
    """Write a sentence that no question asks about."""
    if rng.random() < 0.5:
        return rng.choice(_STOCK)
    tail = rng.choice(
        ("", "", f", as {words.word(rng)} as ever", f" and the {words.word(rng)}", f" in {words.word(rng)}")
    )
    return (
        f"{rng.choice(_OPENINGS)} {words.word(rng)} {words.word(rng)} {rng.choice(_VERBS)} the {words.word(rng)}{tail}."
    )
