"""Sentences in running text that state something, with questions about it; a fifth are held out whole."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slime_vlm.pages.word_lists import Words, listed

AREAS = ("pay", "letter", "tech", "lab", "event", "any")
FIRST_SENTENCES = Path(__file__).with_name("sentences.txt")
MORE_SENTENCES = Path(__file__).with_name("more_sentences.txt")

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
        plain: Its text, with kinds in the place of values; the same for sentences that differ in what is asked.
    """

    area: str
    pieces: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]
    heldout: bool
    plain: str


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


def read_sentences(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """Read a file of sentences: area, sentence and whole questions of every line.

    Raises:
        ValueError: A line that has not three parts, or an unknown area.
    """
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or parts[0] not in AREAS:
            raise ValueError(f"{path.name}:{number}: expected 'area | sentence | questions' of a known area: {line!r}")
        entries.append((parts[0], parts[1], tuple(q for q in listed(parts[2], ";") if q)))
    return entries


def plain_text(text: str) -> str:
    """Return a sentence without the signs that mark roles, so that what is asked about it makes no difference."""
    return text.translate(str.maketrans("", "", "[]{}<>"))


@cache
def _by_area() -> dict[str, list[Sentence]]:
    """Read all sentences and divide them.

    The smallest hashes of an area of the first file are held out. Later sentences are held out by their own hash alone,
    so that none changes its split; sentences that differ only in what is asked about them go together.
    """
    first, more = read_sentences(FIRST_SENTENCES), read_sentences(MORE_SENTENCES)
    heldout = {text for _, text, _ in more if zlib.crc32(plain_text(text).lower().encode()) % _SHARE == 0}
    for area in AREAS:
        ranked = sorted((text for own, text, _ in first if own == area), key=lambda text: zlib.crc32(text.encode()))
        heldout.update(ranked[: max(1, round(len(ranked) / _SHARE))])
    areas: dict[str, list[Sentence]] = {area: [] for area in AREAS}
    for area, text, questions in (*first, *more):
        areas[area].append(Sentence(area, _pieces(text), questions, text in heldout, plain_text(text)))
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
