"""A document while it is written: HTML in which every key and value is marked, and the facts it states.

A mark is a link around a piece of text. Chromium writes links into the PDF with their rectangles, which tell where each
piece stands, however the page was laid out.
"""

from __future__ import annotations

import html
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from slime_vlm.pages.browser.sentences import Sentence
from slime_vlm.pages.browser.theme import Theme
from slime_vlm.pages.browser.thesaurus import Concept, concepts, later_concepts
from slime_vlm.pages.browser.values import Manner, draw_value
from slime_vlm.pages.splits import is_heldout_key, normal_key
from slime_vlm.pages.word_lists import Words, listed

_MODIFIERS = listed(
    "Your Current Main First Stated Registered Official Listed Reported Agreed New Confirmed Second "
    "Actual Present Initial "
    "Internal Local Original Preferred Primary Recorded Revised Usual"
)
_LATER = 0.5  # share of a training page's invented keys that a later concept takes the place of
_OPEN_KINDS = listed(
    "money integer integer percent date time code code person company place phone email measure measure duration word "
    "word phrase state size range rating year version"
)


@dataclass
class Fact:
    """Something that a document states.

    Attributes:
        family: "field", "cell", "title", "issuer", "recipient", "sentence", "chart", "kind", "colour" or "position".
        answer: Printed text that answers.
        kind: Kind of the value.
        value: Mark of the value, -1 when the answer is not printed.
        key: Marks that name what is asked.
        phrase: Key as printed; the row of a cell or of a chart.
        column: Column of a cell.
        section: Section that the key stands in.
        concept: Name of the concept, "" for an invented key.
        questions: Whole questions of a sentence.
        sole: Whether the cell is the only one of its kind in its row.
    """

    family: str
    answer: str
    kind: str = ""
    value: int = -1
    key: tuple[int, ...] = ()
    phrase: str = ""
    column: str = ""
    section: str = ""
    concept: str = ""
    questions: tuple[str, ...] = ()
    sole: bool = False


def _natural(row: str, column: str) -> bool:
    """Whether "how much is", "when is" and "who is" suit a column of a kind in a table with rows of a kind."""
    return column in ("money", "measure", "count") if row != "word" else True


@dataclass(frozen=True)
class Field:
    """A key and its value as HTML and as text; `kind` is the value's."""

    key: str
    value: str
    key_text: str
    value_text: str
    kind: str


@dataclass
class Draft:
    """A document in the making.

    Attributes:
        rng: Source of randomness.
        words: Words of the split.
        theme: Look of the document.
        manner: How it prints values.
        number: Number of the document in its file.
        marks: Text of every mark.
        facts: What the document states.
        taken: Keys, sections included, that are on the page.
        said: Sentences that are on the page, and the whole questions about them.
    """

    rng: random.Random
    words: Words
    theme: Theme
    manner: Manner
    number: int
    marks: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    taken: set[tuple[str, str]] = field(default_factory=set)
    said: set[str] = field(default_factory=set)

    @property
    def split(self) -> str:
        """The split that words, keys and values come from."""
        return self.words.split

    def mark(self, text: str, style: str = "") -> tuple[int, str]:
        """Mark a text: its number and its HTML."""
        self.marks.append(" ".join(text.split()))
        number = len(self.marks) - 1
        attribute = f' class="{style}"' if style else ""
        return number, f'<a{attribute} href="http://m/{self.number}/{number}">{html.escape(text)}</a>'

    def value(self, kind: str) -> str:
        """Draw a value of a kind."""
        return draw_value(self.rng, kind, self.manner, self.words)

    def printed_key(self, concept: Concept) -> str:
        """Draw a printed key of a concept; a word is put before it where the split has no plain one."""
        keys = concept.keys_of(self.split)
        if keys and self.rng.random() < 0.93:
            return self.rng.choice(keys)
        for _ in range(40):
            key = self.rng.choice(concept.keys)
            key = f"{self.rng.choice(_MODIFIERS)} {key if key[:2].isupper() else key[0].lower() + key[1:]}"
            if is_heldout_key(key) == (self.split == "heldout"):
                return key
        return self.open_key()

    def open_key(self) -> str:
        """Make a key of dictionary words and made-up ones."""
        for _ in range(200):
            key = self.words.phrase(self.rng).capitalize()
            if self.rng.random() < 0.1:
                key += self.rng.choice(
                    (" no.", " ID", " date", " total", " (max.)", " %", " 1", " 2", " rate", " code")
                )
            if is_heldout_key(key) == (self.split == "heldout"):
                return key
        raise AssertionError("no key of the split in 200 draws")

    def field(self, name: str | None = None, section: str = "", kind: str = "", value: str = "") -> Field | None:
        """State a key and a value.

        Args:
            name: Concept; None for an invented key.
            section: Section that it stands in.
            kind: Kind of the value, drawn for an invented key without one.
            value: Text of the value, drawn without one.

        Returns:
            The field, or None when its key is on the page already.
        """
        concept = concepts(self.split)[name] if name else None
        for _ in range(8):
            key = self.printed_key(concept) if concept else self.open_key()
            if (normal_key(key), section) not in self.taken:
                break
        else:
            return None
        self.taken.add((normal_key(key), section))
        kind = kind or (concept.kind if concept else self.rng.choice(_OPEN_KINDS))
        value = value or self.value(kind)
        key = self.theme.write_key(key)
        key_mark, key_html = self.mark(key, "k")
        value_mark, value_html = self.mark(value, "v")
        self.facts.append(Fact("field", value, kind, value_mark, (key_mark,), key, section=section, concept=name or ""))
        return Field(key_html, value_html, key, value, kind)

    def _later_concept(self) -> str | None:
        """Draw a later concept for an invented key's place, None for the key; held-out pages have none."""
        if self.split != "train" or self.rng.random() >= _LATER:
            return None
        name = self.rng.choice(later_concepts())
        known = concepts(self.split)
        groups = {known[fact.concept].group for fact in self.facts if fact.concept}
        return None if known[name].group in groups else name

    def unkeyed(self, name: str) -> str:
        """State a value whose key is not printed, such as the date of a letter: HTML of the value."""
        concept = concepts(self.split)[name]
        text = self.value(concept.kind)
        number, marked = self.mark(text, "v")
        self.facts.append(Fact("field", text, concept.kind, number, concept=name))
        return marked

    def fields(
        self, names: Iterable[str | None], least: int = 0, most: int = 99, section: str = "", invented: float = 0.2
    ) -> list[Field]:
        """State some of the concepts, in the order given, and invented ones among them.

        Args:
            names: Concepts to choose from.
            least: Fewest fields.
            most: Most fields.
            section: Section that they stand in.
            invented: Share of fields with other keys beside those named: invented ones, or later concepts' in training.
        """
        pool = list(names)
        count = min(self.rng.randint(least or len(pool), max(least, most) if most < 99 else len(pool)), 40)
        chosen = sorted(self.rng.sample(range(len(pool)), min(count, len(pool))))
        wanted: list[str | None] = [pool[i] for i in chosen]
        wanted = [None if self.rng.random() < invented else name for name in wanted]
        wanted += [None] * (count - len(wanted))
        made = [self.field(name or self._later_concept(), section) for name in wanted]
        return [one for one in made if one is not None]

    def title(self, text: str, tag: str = "h1", style: str = "") -> str:
        """State the document's title."""
        number, marked = self.mark(text)
        self.facts.append(Fact("title", text, "title", number))
        attribute = f' class="{style}"' if style else ""
        return f"<{tag}{attribute}>{marked}</{tag}>"

    def named(self, family: str, text: str) -> str:
        """State who issued the document ("issuer") or who gets it ("recipient")."""
        number, marked = self.mark(text)
        self.facts.append(Fact(family, text, "name", number))
        return marked

    def sentence(self, sentence: Sentence) -> str:
        """Write a sentence out; what it states becomes a fact."""
        self.said.update((sentence.plain, *sentence.questions))
        pieces: list[str] = []
        keys: list[int] = []
        answer, kind, value, phrase = "", "", -1, ""
        for role, text in sentence.pieces:
            if role == "text":
                pieces.append(html.escape(text))
            elif role == "key":
                number, marked = self.mark(text)
                keys.append(number)
                pieces.append(marked)
            elif role == "open":
                phrase = self.open_key().lower()
                number, marked = self.mark(phrase)
                keys.append(number)
                pieces.append(marked)
            elif role == "extra":
                pieces.append(html.escape(self.value(text)))
            else:
                kind = text
                answer = self.value(kind)
                value, marked = self.mark(answer)
                pieces.append(marked)
        if phrase:
            if (normal_key(phrase), "") not in self.taken:
                self.taken.add((normal_key(phrase), ""))
                self.facts.append(Fact("field", answer, kind, value, tuple(keys), phrase))
        else:
            self.facts.append(Fact("sentence", answer, kind, value, tuple(keys), questions=sentence.questions))
        return "".join(pieces)

    def table(
        self, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], headed: bool = True
    ) -> tuple[list[str], list[list[str]]]:
        """Mark a table and state its cells; the first column names the rows.

        Args:
            columns: Heading and kind of value of every column.
            rows: Text of every cell.
            headed: Whether the headings are printed.

        Returns:
            HTML of the headings and of the cells.
        """
        printed = [self.theme.write_key(head) if headed else "" for head, _ in columns]
        heads = [self.mark(head, "k") if head else (-1, "") for head in printed]
        kinds = [kind for _, kind in columns]
        cells = []
        names = [row[0] for row in rows]
        for row in rows:
            marked = [self.mark(text) if text else (-1, "") for text in row]
            cells.append([text for _, text in marked])
            if names.count(row[0]) > 1 or not row[0]:
                continue
            for column in range(1, len(columns)):
                if not row[column] or (headed and not columns[column][0]):
                    continue
                self.facts.append(
                    Fact(
                        "cell",
                        row[column],
                        kinds[column],
                        marked[column][0],
                        (marked[0][0], heads[column][0]) if headed else (marked[0][0],),
                        phrase=row[0],
                        column=columns[column][0] if headed else "",
                        sole=kinds.count(kinds[column]) == 1 and _natural(kinds[0], kinds[column]),
                    )
                )
        return [text for _, text in heads], cells
