"""Asks about what a browser-laid document states, only where one answer is right, and about what it does not state."""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slime_vlm.pages import wordings
from slime_vlm.pages.browser.draft import Fact
from slime_vlm.pages.browser.thesaurus import Concept, concepts
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.questions import vary_case
from slime_vlm.pages.readable import PageQuestion, ReadablePage
from slime_vlm.pages.splits import choose_wording, normal_key
from slime_vlm.pages.word_lists import Words

_LONGEST = 64  # characters of an answer
_SHARE = 5
_ABBREVIATIONS = {
    "no.": "number",
    "no": "number",
    "#": "number",
    "qty": "quantity",
    "qty.": "quantity",
    "tel.": "telephone",
    "tel": "telephone",
    "ref.": "reference",
    "ref": "reference",
    "dept.": "department",
    "inv.": "invoice",
    "temp.": "temperature",
    "max.": "maximum",
    "min.": "minimum",
    "art.": "article",
    "acct.": "account",
    "exp.": "expiry",
    "est.": "estimated",
    "reg.": "registration",
    "cust.": "customer",
    "wt.": "weight",
    "dep.": "departure",
    "arr.": "arrival",
    "rm": "room",
    "mob.": "mobile",
    "incl.": "including",
    "excl.": "excluding",
}
# Keys that say nothing without their place: asked by the concept's nouns alone.
_BARE = frozenset(
    [
        "from",
        "to",
        "by",
        "until",
        "due",
        "net",
        "each",
        "t",
        "f",
        "e",
        "re",
        "start",
        "end",
        "time",
        "place",
        "date",
        "class",
        "size",
        "rate",
        "net",
        "where",
        "signed",
        "open",
        "given",
        "used",
        "paid",
        "change",
        "cash",
        "title",
        "subject",
        "name",
        "reason",
        "attention",
        "attn.",
        "for",
    ]
)
_HASTE = {"sentence": 0.4, "chart": 0.5}
_OVERVIEW_COLOURS = frozenset({"blue", "green", "red", "orange", "purple", "teal", "brown"})


@dataclass(frozen=True)
class Stated:
    """A fact with the characters that name it and that answer.

    Attributes:
        fact: The fact.
        key: int32 [K].
        value: int32 [V].
    """

    fact: Fact
    key: np.ndarray
    value: np.ndarray


def is_heldout_question(question: str) -> bool:
    """Whether a whole question of the thesaurus or of a sentence is held out."""
    return zlib.crc32(question.lower().encode()) % _SHARE == 0


def asked_key(rng: random.Random, key: str) -> str:
    """Write a printed key as someone asks for it: without its mark, mostly in lower case, abbreviations spelled out."""
    text = " ".join(key.split()).strip(" .:") if not key.endswith(("no.", "No.")) else key
    if rng.random() < 0.8:
        text = " ".join(_ABBREVIATIONS.get(word.lower(), word) for word in text.split())
    if rng.random() < 0.85:
        text = text.lower() if text.isupper() or rng.random() < 0.8 else text[:1].lower() + text[1:]
    return text


def _is_rare(fact: Fact) -> bool:
    """Whether few pages state such a fact; with `rare` above 1 it may be asked twice, in different words."""
    return fact.family in _HASTE or (fact.family == "field" and bool(fact.section))


class Asker:
    """Draws questions about one page."""

    def __init__(
        self,
        rng: random.Random,
        page: ReadablePage,
        stated: Sequence[Stated],
        words: Words,
        *,
        kind: str,
        accent: str = "",
        sections: Sequence[str] = (),
        rare: float = 1.0,
    ) -> None:
        """Look over what the page states.

        Args:
            rng: Source of randomness.
            page: The page; its split decides which wordings are used.
            stated: Its facts, those alone whose characters are on the page.
            words: Words for what is absent.
            kind: Kind of the document.
            accent: Name of its accent colour, "" where none stands out.
            sections: Names of its sections.
            rare: About how many times as often as usual families are asked that pages give little occasion for:
                sentences, charts, fields of sections, other words for a key, and what a value stands for. At 1.0
                questions are those of an evaluation.
        """
        self.rng, self.page, self.stated, self.words = rng, page, stated, words
        self.kind, self.accent, self.rare = kind, accent, rare
        facts = [one.fact for one in stated]
        self.keys = Counter(normal_key(fact.phrase) for fact in facts if fact.phrase and fact.family != "cell")
        self.keys.update({normal_key(column) for column in {fact.column for fact in facts if fact.column}})
        self.in_sections = Counter((normal_key(fact.phrase), fact.section) for fact in facts if fact.family == "field")
        self.concepts = concepts(page.split)
        self.groups = Counter(self.concepts[fact.concept].group for fact in facts if fact.concept)
        self.families = Counter(fact.family for fact in facts)
        self.cells = Counter((fact.column, fact.answer) for fact in facts if fact.family == "cell")
        self.questions_asked = Counter(question for fact in facts for question in fact.questions)
        self.text = " ".join(page.line_texts()).lower()
        self.rows = sorted({fact.phrase for fact in facts if fact.family == "cell"})
        columns = {fact.column for fact in facts if fact.family == "cell" and fact.column != "price"}
        # Some tables have a column without a heading, which nobody can ask for.
        self.columns = sorted(column for column in columns if column.strip(" .:"))
        self.sections = list(sections)

    def draw(self, count: int, absent: float, overview: float) -> list[PageQuestion]:
        """Ask up to `count` different questions.

        Args:
            count: Most questions.
            absent: Share of questions about what the page does not state.
            overview: Share of questions about the page as a whole: its kind, its colour, where a thing is.
        """
        rng = self.rng
        questions: list[PageQuestion] = []
        seen: set[str] = set()
        missing = sum(rng.random() < absent for _ in range(count)) if self.stated else 0
        whole = sum(rng.random() < overview for _ in range(count))
        # Sentences and charts are few on a page of many fields.
        stated = [one for one in self.stated for _ in range(2 if self.rare > 1 and _is_rare(one.fact) else 1)]
        order = sorted(stated, key=lambda one: rng.random() * self._haste(one.fact))
        # Many cells must not drown the few fields of a page.
        cells = [one for one in order if one.fact.family == "cell"]
        others = [one for one in order if one.fact.family != "cell"]
        order = [x for pair in zip(others, cells, strict=False) for x in pair]
        order += others[len(cells) :] + cells[len(others) :]
        for _ in range(6 * count):
            if len(questions) >= count:
                break
            if missing:
                made = self._absent()
            elif whole:
                made = self._overview()
                whole -= 1
            elif order:
                made = self._about(order.pop(0))
            else:
                break
            if made is None:
                continue
            text = vary_case(rng, re.sub(r"\b([Tt]he) (your|our|my|the)\b", r"\2", made.text))
            plain = text.lower().rstrip("?.")
            if plain in seen:
                continue
            seen.add(plain)
            missing -= made.answer == ABSENT
            questions.append(PageQuestion(text, made.answer, made.family, made.wording, made.key, made.value))
        rng.shuffle(questions)
        return questions

    def _haste(self, fact: Fact) -> float:
        """Return the largest number that a fact may draw for its turn: those of small ones are asked first."""
        return _HASTE.get(fact.family, 1.0) / (self.rare if _is_rare(fact) else 1.0)

    def _pattern(self, family: str, **slots: str) -> tuple[str, str] | None:
        """Draw a wording of a family and fill it in: the text and the pattern."""
        pattern = choose_wording(self.rng, wordings.FAMILIES[family], self.page.split)
        return (pattern.format(**slots), pattern) if pattern else None

    def _whole_questions(self, questions: Sequence[str]) -> list[str]:
        heldout = self.page.split == "heldout"
        return [question for question in questions if is_heldout_question(question) == heldout]

    def _make(
        self, filled: tuple[str, str] | None, family: str, one: Stated, turned: bool = False
    ) -> PageQuestion | None:
        if filled is None:
            return None
        key, value = (one.value, one.key) if turned else (one.key, one.value)
        answer = self.page.text_at(value) if turned else one.fact.answer
        if not answer or len(answer) > _LONGEST:
            return None
        return PageQuestion(filled[0], answer, family, filled[1], key, value)

    def _about(self, one: Stated) -> PageQuestion | None:
        family = one.fact.family
        if family == "field":
            return self._field(one)
        if family == "cell":
            return self._cell(one)
        if family == "sentence":
            usable = [q for q in self._whole_questions(one.fact.questions) if self.questions_asked[q] == 1]
            question = self.rng.choice(usable) if usable else None
            return self._make((question, question) if question else None, "sentence", one)
        if family == "chart":
            return self._chart(one)
        # One title, one sender, one addressee.
        return self._make(self._pattern(family), family, one) if self.families[family] == 1 else None

    def _field(self, one: Stated) -> PageQuestion | None:
        rng, fact = self.rng, one.fact
        concept = self.concepts[fact.concept] if fact.concept else None
        if not fact.phrase:
            return self._synonym(one, concept) if concept and self.groups[concept.group] == 1 else None
        unique = self.keys[normal_key(fact.phrase)] == 1
        draw = rng.random()
        if draw < 0.12 * self.rare and self._stands_once(fact.answer) and 3 <= len(fact.answer) <= 40:
            return self._make(self._pattern("reverse", v=fact.answer), "reverse", one, turned=True)
        if (
            concept
            and self.groups[concept.group] == 1
            and (draw < 0.45 * self.rare or normal_key(fact.phrase) in _BARE)
        ):
            return self._synonym(one, concept)
        key = asked_key(rng, fact.phrase)
        if not unique or (fact.section and rng.random() < 0.2 * self.rare):
            if fact.section and self.in_sections[normal_key(fact.phrase), fact.section] == 1:
                return self._make(self._pattern("in_section", k=key, s=fact.section), "in_section", one)
            return None
        if normal_key(fact.phrase) in _BARE:
            return None
        return self._make(self._by_key(key, fact.kind), "field", one)

    def _by_key(self, key: str, kind: str) -> tuple[str, str] | None:
        family = f"field_{kind}"
        known = family in wordings.FAMILIES and self.rng.random() < 0.4
        return self._pattern(family if known else "field", k=key)

    def _synonym(self, one: Stated, concept: Concept) -> PageQuestion | None:
        whole = self._whole_questions(concept.questions)
        if whole and self.rng.random() < 0.6:
            question = self.rng.choice(whole)
            return self._make((question, question), "synonym", one)
        return self._make(self._by_key(self.rng.choice(concept.nouns), concept.kind), "synonym", one)

    def _stands_once(self, text: str) -> bool:
        return len(re.findall(rf"(?<!\w){re.escape(text.lower())}(?!\w)", self.text)) == 1

    def _cell(self, one: Stated) -> PageQuestion | None:
        rng, fact = self.rng, one.fact
        family = f"cell_{fact.kind}"
        natural = fact.sole and family in wordings.FAMILIES
        if not fact.column:
            return self._make(self._pattern(family, r=fact.phrase), "cell", one) if natural else None
        single = self.cells[fact.column, fact.answer] == 1 and self._stands_once(fact.answer)
        column = asked_key(rng, fact.column)
        if single and rng.random() < 0.25 * self.rare and self._stands_once(fact.phrase):
            row = Stated(fact, one.key[: len(one.key)], one.value)
            filled = self._pattern("row", v=fact.answer, c=column)
            if filled is None:
                return None
            named = self._row_characters(one)
            return PageQuestion(filled[0], fact.phrase, "row", filled[1], row.value, named) if len(named) else None
        if natural and rng.random() < 0.4:
            return self._make(self._pattern(family, r=fact.phrase), "cell", one)
        return self._make(self._pattern("cell", r=fact.phrase, c=column), "cell", one)

    def _row_characters(self, one: Stated) -> np.ndarray:
        """The characters of a cell's row name: those of its key that spell it."""
        letters = len(fact_letters(one.fact.phrase))
        named = one.key[: letters + one.fact.phrase.count(" ")]
        for end in range(len(named), max(0, len(named) - 4), -1):
            if fact_letters(self.page.text_at(one.key[:end])) == fact_letters(one.fact.phrase):
                return one.key[:end]
        return np.zeros(0, np.int32)

    def _chart(self, one: Stated) -> PageQuestion | None:
        fact = one.fact
        if self.keys[normal_key(fact.phrase)] != 1:
            return None
        if self.rng.random() < 0.25 * self.rare and self._stands_once(fact.answer):
            return self._make(self._pattern("chart_reverse", v=fact.answer), "chart_reverse", one, turned=True)
        return self._make(self._pattern("chart", r=fact.phrase), "chart", one)

    def _overview(self) -> PageQuestion | None:
        none = np.zeros(0, np.int32)
        form = self.rng.choice(("kind", "kind", "colour", "position") if self.kind else ("colour", "position"))
        if form == "kind":
            filled, answer, key = self._pattern("kind"), self.kind, none
        elif form == "colour" and self.accent in _OVERVIEW_COLOURS:
            filled, answer, key = self._pattern("colour"), self.accent, none
        else:
            usable = [
                o
                for o in self.stated
                if o.fact.phrase and o.fact.family == "field" and self.keys[normal_key(o.fact.phrase)] == 1
            ]
            if not usable:
                return None
            one = self.rng.choice(usable)
            filled, key = self._pattern("position", k=asked_key(self.rng, one.fact.phrase)), one.key
            answer, form = position_name(self.page, one.value), "position"
        return PageQuestion(filled[0], answer, form, filled[1], key, none) if filled else None

    def _is_absent(self, phrase: str) -> bool:
        return normal_key(phrase) not in self.text and phrase.lower() not in self.text

    def _absent(self) -> PageQuestion | None:
        rng = self.rng
        filled: tuple[str, str] | None = None
        form = rng.random()
        if form < 0.5:
            concept = rng.choice(list(self.concepts.values()))
            if concept.group in self.groups or not all(map(self._is_absent, (*concept.keys, *concept.nouns))):
                return None
            whole = self._whole_questions(concept.questions)
            keys = concept.keys_of(self.page.split)
            if whole and rng.random() < 0.35:
                question = rng.choice(whole)
                # A sentence or a name may answer a free question after all.
                if concept.kind in ("person", "company", "date", "time", "place", "phone", "money", "duration"):
                    return None
                filled = (question, question)
            else:
                key = asked_key(rng, rng.choice(keys)) if keys and rng.random() < 0.6 else rng.choice(concept.nouns)
                if normal_key(key) in _BARE or len(key) < 3:
                    return None
                filled = self._by_key(key, concept.kind)
        elif form < 0.75 or not self.rows:
            key = self.words.phrase(rng)
            if any(not self._is_absent(word) for word in key.split()):
                return None
            filled = self._by_key(key, rng.choice(("", "money", "date", "person", "code", "integer")))
        elif form < 0.9 and self.columns:
            row = self.words.phrase(rng).capitalize()
            if any(not self._is_absent(word) for word in row.split()):
                return None
            filled = self._pattern("cell", r=row, c=asked_key(rng, rng.choice(self.columns)))
        else:
            column = self.words.phrase(rng)
            if any(not self._is_absent(word) for word in column.split()):
                return None
            filled = self._pattern("cell", r=rng.choice(self.rows), c=column)
        none = np.zeros(0, np.int32)
        return PageQuestion(filled[0], ABSENT, "absent", filled[1], none, none) if filled else None


def fact_letters(text: str) -> str:
    """Return a text without blanks, in lower case, to compare what was written with what was found on the page."""
    return "".join(text.split()).lower()


def position_name(page: ReadablePage, characters: np.ndarray) -> str:
    """Name the ninth of a page in which characters stand: "top left", "centre", "bottom right" and so on."""
    boxes = page.boxes[characters]
    height, width = page.image.shape[:2]
    across = float((boxes[:, 0].min() + boxes[:, 2].max()) / 2) / width
    down = float((boxes[:, 1].min() + boxes[:, 3].max()) / 2) / height
    column = ("left", "centre", "right")[min(2, int(3 * across))]
    row = ("top", "middle", "bottom")[min(2, int(3 * down))]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def resolve(
    page: ReadablePage, marks: Sequence[str], characters: Mapping[int, np.ndarray], facts: Sequence[Fact]
) -> list[Stated]:
    """Join facts with their characters; facts whose key or value is not on the page as written are left out."""
    found = {
        number: indices
        for number, indices in characters.items()
        if number < len(marks) and fact_letters(page.text_at(indices)) == fact_letters(marks[number])
    }
    stated = []
    for fact in facts:
        if fact.value not in found or any(mark not in found for mark in fact.key):
            continue
        keys = [found[mark] for mark in fact.key]
        stated.append(Stated(fact, np.concatenate(keys) if keys else np.zeros(0, np.int32), found[fact.value]))
    return stated
