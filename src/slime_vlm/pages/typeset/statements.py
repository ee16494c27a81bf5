"""Finds what a typeset page states (headings, captions, contents, definitions, dates) and asks about it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from slime_vlm.pages import wordings
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import PageQuestion, ReadablePage
from slime_vlm.pages.splits import choose_wording
from slime_vlm.pages.typeset.wordings import TYPESET_WORDINGS
from slime_vlm.pages.word_lists import listed

_LONGEST = 48  # characters of an answer

_SECTION = re.compile(r"((?:[A-Z]\.)?\d{1,2}(?:\.\d{1,2}){0,3})\.?\s+([A-Z\W]?[A-Za-z].{1,45})")
_CONTENTS = re.compile(r"(?:[\dA-Z.]+\s+)?([A-Za-z].{2,40}?)\s*(?:[.·…]\s*){3,}\s*(\d{1,3})")
_CAPTION = re.compile(
    r"((?:Figure|Table|Listing|Example|Fig\.|Algorithm)\s+\d[\d.]*\d|(?:Figure|Table|Listing|Example|Fig\.|Algorithm)\s+\d)[.:]?\s+(\S.{3,46})"
)
_FIELD = re.compile(r"([A-Z][A-Za-z]+(?: [A-Za-z]+){0,3}):\s+(\S.{0,40}?)[.;]?")
_PAGE_NUMBER = re.compile(r"(?:Page |– |- )?(\d{1,4}|[ivxl]{1,6})(?: –| -)?", re.IGNORECASE)
_NUMBER_OF = re.compile(
    r"(?<![\w.,/-])(\d{1,3}(?:[, ]?\d{3})*|two|three|four|five|six|seven|eight|nine|ten|twelve) ([a-z]{4,14}s)\b"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:(?:{_MONTHS}) \d{{1,2}}, \d{{4}}|\d{{1,2}} (?:{_MONTHS}) \d{{4}}|\d{{4}}[-/]\d{{2}}[-/]\d{{2}})\b"
)
_VERSION = re.compile(r"\b[Vv](?:ersion\s+v?|)(\d+(?:\.\d+){1,3}[a-z]?)\b")
# Angle brackets of some fonts come out as letters: "hx@y.fri" is no address.
_EMAIL = re.compile(r"\b[\w.+-]{1,24}@[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|info|[a-z]{2})\b")
_URL = re.compile(r"https?://[\w./~%#?=&+-]{6,40}(?<![.,])")
_NOT_NOUNS = frozenset(listed("does this thus less across always perhaps times others lets has was towards"))


@dataclass(frozen=True)
class _Line:
    """A line with the index of its first character, its text, the height of its letters and where it stands."""

    start: int
    text: str
    size: float
    top: float

    def span(self, start: int, end: int) -> np.ndarray:
        """Indices of some of its characters."""
        return np.arange(self.start + start, self.start + end, dtype=np.int32)


@dataclass(frozen=True)
class _Statement:
    """What a page states: a family of patterns, the phrase to ask with, where it stands, and what answers."""

    family: str
    phrase: str
    key: np.ndarray
    answer: str
    value: np.ndarray


def _lines(page: ReadablePage) -> list[_Line]:
    starts = np.flatnonzero(np.diff(page.lines, prepend=-1)).tolist()
    lines = []
    for start, text in zip(starts, page.line_texts(), strict=True):
        boxes = page.boxes[start : start + len(text)]
        lines.append(_Line(start, text, float(np.median(boxes[:, 3] - boxes[:, 1])), float(boxes[:, 1].min())))
    return lines


def _matches(line: _Line, pattern: re.Pattern[str], family: str, turned: str = "") -> Iterator[_Statement]:
    """State that the first group of a whole line names the second one; `turned` is the family of the other way."""
    match = pattern.fullmatch(line.text)
    if match is None:
        return
    key, value = line.span(*match.span(1)), line.span(*match.span(2))
    yield _Statement(family, match[1], key, match[2], value)
    if turned:
        yield _Statement(turned, match[2], value, match[1], key)


def _headings(page: ReadablePage, lines: list[_Line], body: float) -> Iterator[_Statement]:
    height = page.image.shape[0]
    largest = max(line.size for line in lines)
    titles = [i for i, line in enumerate(lines) if line.size > 0.93 * largest]
    adjacent = all(b - a == 1 for a, b in pairwise(titles))
    if largest > 1.35 * body and len(titles) <= 2 and adjacent and lines[titles[0]].top < 0.6 * height:
        text = " ".join(lines[i].text for i in titles)
        if sum(c.isalpha() for c in text) >= 4:
            value = np.concatenate([lines[i].span(0, len(lines[i].text)) for i in titles])
            yield _Statement("title", "", np.zeros(0, np.int32), text, value)
    for line in lines:
        if line.size > 1.08 * body:
            yield from _matches(line, _SECTION, "section", "section_number")
    for line in (lines[0], lines[-1]):
        near_edge = line.top < 0.12 * height or line.top > 0.88 * height
        match = _PAGE_NUMBER.fullmatch(line.text)
        if match and near_edge:
            yield _Statement("page_number", "", np.zeros(0, np.int32), match[1], line.span(*match.span(1)))
    first = lines[0]
    if first.top < 0.1 * height and first.size < 1.2 * body and len(first.text) >= 6 and not first.text[-1].isdigit():
        yield _Statement("running_head", "", np.zeros(0, np.int32), first.text, first.span(0, len(first.text)))


def _singles(page: ReadablePage, lines: list[_Line]) -> Iterator[_Statement]:
    """State what there is one of on the page: a date, a version, an address."""
    for family, pattern in (("date", _DATE), ("version", _VERSION), ("email", _EMAIL), ("url", _URL)):
        found = [(line, match) for line in lines for match in pattern.finditer(line.text)]
        if len({match[0] for _, match in found}) == 1:
            line, match = found[0]
            group = match.lastindex or 0
            none = np.zeros(0, np.int32)
            yield _Statement(family, "", none, match[group], line.span(*match.span(group)))
    nouns: Counter[str] = Counter()
    found = [(line, match) for line in lines for match in _NUMBER_OF.finditer(line.text)]
    nouns.update(match[2] for _, match in found)
    for line, match in found:
        if nouns[match[2]] == 1 and match[2] not in _NOT_NOUNS:
            yield _Statement("number_of", match[2], line.span(*match.span(2)), match[1], line.span(*match.span(1)))


def _rest_of_lines(rng: random.Random, page: ReadablePage, lines: list[_Line]) -> Iterator[_Statement]:
    """State how lines go on that begin with words that stand on the page once."""
    whole = " ".join(line.text for line in lines)
    long = [line for line in lines if line.text.count(" ") >= 5 and sum(c.isalpha() for c in line.text) > 20]
    for line in rng.sample(long, min(3, len(long))):
        spans = [match.span() for match in re.finditer(r"\S+", line.text)]
        count = rng.choice((2, 3, 3))
        key = line.text[: spans[count - 1][1]]
        if whole.count(key) != 1 or '"' in key:
            continue
        first = spans[count][0]
        rest = line.span(first, len(line.text))
        yield _Statement("line", key.strip(",.;:()"), line.span(0, len(key)), line.text[first:], rest)


def statements(rng: random.Random, page: ReadablePage) -> list[_Statement]:
    """Return what can be asked about the page with one answer only."""
    lines = _lines(page)
    if len(lines) < 2:
        return []
    body = float(np.median(page.boxes[:, 3] - page.boxes[:, 1]))
    found = list(_headings(page, lines, body))
    for line in lines:
        contents = list(_matches(line, _CONTENTS, "contents"))
        caption = list(_matches(line, _CAPTION, "caption"))
        found += contents or caption or list(_matches(line, _FIELD, "field", "reverse"))
    found += _singles(page, lines)
    found += _rest_of_lines(rng, page, lines)
    # The same words asking for different things cannot be answered.
    asked = Counter((s.family, s.phrase.lower()) for s in found)
    return [
        s
        for s in found
        if asked[s.family, s.phrase.lower()] == 1
        and len(s.answer) <= _LONGEST
        and len(s.phrase) <= _LONGEST
        # A value that ends so goes on in the next line.
        and not (s.family in ("field", "reverse") and (s.answer[-1] in ",-(" or s.phrase[-1:] in (",", "-", "(")))
    ]


def _absent(rng: random.Random, text: str, words: list[str]) -> tuple[str, str] | None:
    """Draw a family and a phrase that the page says nothing about; `text` is the page's in lower case."""
    family = rng.choice(("field", "field", "section", "caption", "number_of", "contents"))
    if family == "section":
        phrase = f"{rng.randrange(1, 15)}.{rng.randrange(1, 12)}"
    elif family == "caption":
        phrase = f"{rng.choice(('figure', 'table'))} {rng.randrange(1, 30)}"
    elif family == "number_of":
        phrase = rng.choice(words).rstrip("s") + "s"
    else:
        phrase = " ".join(rng.choice(words) for _ in range(rng.choice((1, 2))))
    return None if phrase in text or phrase.title() in text else (family, phrase)


def typeset_questions(
    rng: random.Random, page: ReadablePage, *, count: int, absent: float, words: list[str]
) -> list[PageQuestion]:
    """Ask up to `count` questions about a typeset page.

    Args:
        rng: Source of randomness.
        page: The page; its split decides which wordings are used.
        count: Most questions.
        absent: Share of questions about what the page does not state.
        words: Words for what is absent.
    """
    families = {**wordings.FAMILIES, **TYPESET_WORDINGS}
    found = statements(rng, page)
    rng.shuffle(found)
    # Rare kinds first: every page has running text, few have a caption.
    found.sort(key=lambda s: s.family == "line")
    text = " ".join(page.line_texts()).lower()
    questions: list[PageQuestion] = []
    seen: set[str] = set()

    def add(family: str, phrase: str, answer: str, key: np.ndarray, value: np.ndarray, named: str) -> None:
        wording = choose_wording(rng, families[family], page.split)
        if wording is None:
            return
        written = wording.format(k=phrase, v=phrase)
        if written.lower() not in seen:
            seen.add(written.lower())
            questions.append(PageQuestion(written, answer, named, wording, key, value))

    none = np.zeros(0, np.int32)
    missing = sum(rng.random() < absent for _ in range(count)) if words else 0
    for _ in range(missing):
        thing = _absent(rng, text, words)
        if thing:
            add(*thing, ABSENT, none, none, "absent")
    for s in found:
        if len(questions) >= count:
            break
        phrase = s.phrase.lower() if s.family in ("field", "caption") and rng.random() < 0.7 else s.phrase
        add(s.family, phrase, s.answer, s.key, s.value, s.family)
    rng.shuffle(questions)
    return questions
