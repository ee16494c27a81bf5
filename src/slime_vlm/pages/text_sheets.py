"""Sheets of keys and values in an open vocabulary, laid out without a renderer: hundreds a second, as text alone.

Keys stand beside their values, above them, or head the rows and columns of a table. Half of the keys are drawn from a
dictionary, half from the thesaurus of what documents state, so that people's other words for them are learnt, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from slime_vlm.pages.browser.asking import asked_key, is_heldout_question
from slime_vlm.pages.browser.thesaurus import Concept, concepts
from slime_vlm.pages.browser.values import KINDS, MONTHS, WEEKDAYS, Manner, draw_manner, draw_value
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.questions import vary_case
from slime_vlm.pages.readable import PageQuestion
from slime_vlm.pages.splits import choose_wording, is_heldout_key, normal_key
from slime_vlm.pages.text_page import TextPage
from slime_vlm.pages.word_lists import Words
from slime_vlm.pages.wordings import FAMILIES

_SEPARATORS = (": ", ":", " ", " = ", " - ", "", ": ")
_CELL_KINDS = (
    *("money", "count", "integer", "percent", "date", "code", "measure"),
    *("money", "phrase", "word", "word", "person", "time", "state", "range", "year", "duration"),
)
_LONGEST_LINE = 26  # characters of a line of a wrapped value

# Widths of characters as shares of the font size, about those of a sans serif face.
_WIDTHS = np.full(0x250, 0.54, np.float32)
for _width, _characters in (
    (0.28, "iIjl.,:;'|!"),
    (0.36, "frt()- /[]"),
    (0.85, "mwMW%&@"),
    (0.66, "ABCDEFGHKLNOPQRSTUVXYZ"),
):
    _WIDTHS[[ord(character) for character in _characters]] = _width


@dataclass(frozen=True)
class SheetSettings:
    """What sheets look like and ask.

    Attributes:
        lines: Fewest and most keys; their logarithm is drawn evenly.
        layouts: Shares of "beside", "above" and "table".
        known: Share of keys from the thesaurus.
        synonyms: Share of these that are asked in other words.
        wrapped: Share of long values that take two lines.
        distractors: Whether lines without keys stand between those with.
        questions: Most questions a sheet.
        absent: Share of questions about what is not on the sheet.
        rows: Share of questions about a table that name a value and ask for its row.
        keys: Split of keys and values, "train" or "heldout".
        wordings: Split of the patterns of questions.
    """

    lines: tuple[int, int] = (3, 30)
    layouts: tuple[tuple[str, float], ...] = (("beside", 0.45), ("above", 0.15), ("table", 0.4))
    known: float = 0.4
    synonyms: float = 0.4
    wrapped: float = 0.3
    distractors: bool = True
    questions: int = 8
    absent: float = 0.12
    rows: float = 0.15
    keys: str = "train"
    wordings: str = "train"


@dataclass
class Entry:
    """A key, or a row and a column, with its value.

    Attributes:
        key: As printed.
        kind: Kind of the value.
        value: As printed, without line breaks.
        concept: What it is in the thesaurus; None for an invented key.
        column: Heading of a table's column; the key is then the row's.
        named: Characters of the key and the column.
        answered: Characters of the value.
        row: Characters of the row's name, if no other row has this value in the column.
    """

    key: str
    kind: str
    value: str
    concept: Concept | None = None
    column: str = ""
    named: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    answered: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))


class _Ink:
    """Collects printed text."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.texts: list[str] = []
        self.boxes: list[np.ndarray] = []
        self.count = 0

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return float(_WIDTHS[[min(ord(c), 0x24F) for c in text]].sum()) * self.size

    def put(self, x: float, y: float, text: str) -> tuple[float, np.ndarray]:
        """Print a text; return where it ends, and the indices of its characters."""
        widths = _WIDTHS[np.array([min(ord(c), 0x24F) for c in text], int)] * self.size
        ends = x + np.cumsum(widths)
        starts = ends - widths
        tops = np.full(len(text), y)
        self.boxes.append(np.stack([starts, tops, ends, tops + 1.2 * self.size], 1).astype(np.float32))
        self.texts.append(text)
        indices = np.arange(self.count, self.count + len(text), dtype=np.int32)
        self.count += len(text)
        return x + float(widths.sum()), indices


class TextSheets:
    """Sheets by seed.

    Args:
        words: The whole word list, see `word_lists.read_words`.
        settings: What they look like and ask.
    """

    def __init__(self, words: Sequence[str], settings: SheetSettings | None = None) -> None:
        self.settings = settings or SheetSettings()
        self.words = Words(words, self.settings.keys)
        self.concepts = [one for one in concepts(self.settings.keys).values() if one.keys_of(self.settings.keys)]

    def page(self, seed: int) -> TextPage:
        """Lay out the sheet of a seed."""
        settings = self.settings
        rng = random.Random(f"sheet {settings.keys} {seed}")
        low, high = settings.lines
        lines = round(low * (high / low) ** rng.random())
        names, shares = zip(*settings.layouts, strict=True)
        layout: Callable[[random.Random, _Ink, Manner, int], list[Entry]] = {
            "beside": self._beside,
            "above": self._above,
            "table": self._table,
        }[rng.choices(names, shares)[0]]
        ink = _Ink(rng.uniform(17.0, 28.0))
        entries = layout(rng, ink, draw_manner(rng), lines)
        boxes = np.concatenate(ink.boxes)
        # Lines in the order of the page: text that was put at the same height in the same go is a line.
        counts = [len(text) for text in ink.texts]
        right, bottom = float(boxes[:, 2].max()), float(boxes[:, 3].max())
        return TextPage(
            characters="".join(ink.texts),
            boxes=boxes,
            lines=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            size=(int(bottom + rng.uniform(4, 40)), int(right + rng.uniform(4, 40))),
            questions=self._questions(rng, entries),
            facts=[(one.named, one.answered) for one in entries],
        )

    # What is stated -----------------------------------------------------------------------------------------------

    def _phrase(self, rng: random.Random, taken: Sequence[str]) -> str:
        """Draw an invented key; a quarter share a word with another key of the sheet."""
        while True:
            key = self.words.phrase(rng)
            if taken and rng.random() < 0.25:
                other = rng.choice(rng.choice(taken).lower().split())
                key = f"{other} {key.split()[0]}" if rng.random() < 0.5 else f"{key.split()[0]} {other}"
            if is_heldout_key(key) == (self.settings.keys == "heldout"):
                return key

    def _keys(self, rng: random.Random, count: int) -> list[tuple[str, Concept | None]]:
        """Draw different keys, in one manner of capitals."""
        style = rng.choice((str.title, str.upper, str.capitalize, str.capitalize, str))
        found: list[tuple[str, Concept | None]] = []
        taken: set[str] = set()
        groups: set[str] = set()
        while len(found) < count:
            concept = rng.choice(self.concepts) if rng.random() < self.settings.known else None
            if concept is None or concept.group in groups:
                key, concept = style(self._phrase(rng, [key for key, _ in found])), None
            else:
                groups.add(concept.group)
                key = rng.choice(concept.keys_of(self.settings.keys))
            if normal_key(key) not in taken:
                taken.add(normal_key(key))
                found.append((key, concept))
        return found

    def _entries(self, rng: random.Random, manner: Manner, count: int) -> list[Entry]:
        entries = []
        for key, concept in self._keys(rng, count):
            kind = concept.kind if concept else rng.choice(KINDS)
            entries.append(Entry(key, kind, draw_value(rng, kind, manner, self.words), concept))
        return entries

    # Layouts ------------------------------------------------------------------------------------------------------

    def _put_value(self, rng: random.Random, ink: _Ink, x: float, y: float, entry: Entry, pitch: float) -> float:
        """Print a value, some long ones on two lines; return how many pixels it is wide."""
        parts = [entry.value]
        if len(entry.value) > _LONGEST_LINE // 2 and " " in entry.value and rng.random() < self.settings.wrapped:
            words = entry.value.split(" ")
            cut = rng.randrange(1, len(words))
            parts = [" ".join(words[:cut]), " ".join(words[cut:])]
        answered, end = [], x
        for row, part in enumerate(parts):
            stop, indices = ink.put(x, y + row * pitch, part)
            answered.append(indices)
            end = max(end, stop)
        entry.answered = np.concatenate(answered)
        return end

    def _distractor(self, rng: random.Random, entries: Sequence[Entry]) -> str:
        text = [self.words.word(rng) for _ in range(rng.randrange(2, 6))]
        if rng.random() < 0.3:
            text[rng.randrange(len(text))] = rng.choice(rng.choice(entries).key.split())
        return " ".join(text).capitalize()

    def _beside(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """Keys with their values beside them, in one or two columns."""
        entries = self._entries(rng, manner, count)
        columns = 2 if count >= 4 and rng.random() < 0.4 else 1
        half = -(-count // columns)
        pitch = ink.size * rng.uniform(1.25, 1.9)
        separator, aligned = rng.choice(_SEPARATORS), rng.random() < 0.5
        x0, y0 = rng.uniform(4, 60), rng.uniform(4, 40)
        loose = self.settings.distractors and rng.random() < 0.5
        extra = [rng.random() < 0.2 and loose for _ in range(half)]
        left, widest = x0, x0
        for begin in range(0, count, half):
            part = entries[begin : begin + half]
            edge = left + max(ink.width(one.key + separator) for one in part) + rng.uniform(4, 40)
            y = y0
            for row, entry in enumerate(part):
                if extra[row]:
                    # Distractors of the first column run into the second one's ground, as headings do.
                    if begin == 0:
                        ink.put(x0, y, self._distractor(rng, entries))
                    y += pitch
                x, indices = ink.put(left, y, entry.key + separator)
                entry.named = indices[: len(entry.key)]
                gap = 0.0 if separator.endswith(" ") and rng.random() < 0.8 else 0.36 * ink.size
                end = self._put_value(rng, ink, edge if aligned else x + gap, y, entry, pitch)
                widest = max(widest, end)
                # A second line of the value; those of both columns keep step.
                y += pitch * (2 if columns == 1 and _lines_of(ink, entry) > 1 else 1)
                if columns == 2 and _lines_of(ink, entry) > 1:
                    y += pitch
            left = widest + rng.uniform(24, 80)
        return entries

    def _above(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """Keys above their values, as in the boxes of a form."""
        entries = self._entries(rng, manner, count)
        across = min(count, rng.randrange(1, 5))
        pitch = ink.size * rng.uniform(1.25, 1.6)
        y = rng.uniform(4, 40)
        x0, apart = rng.uniform(4, 60), rng.uniform(20, 70)
        widths = [
            max(max(ink.width(one.key), ink.width(one.value)) for one in entries[column::across])
            for column in range(across)
        ]
        for begin in range(0, count, across):
            x, tall = x0, 1
            for column, entry in enumerate(entries[begin : begin + across]):
                _, entry.named = ink.put(x, y, entry.key)
                self._put_value(rng, ink, x + rng.choice((0.0, 0.0, 12.0)), y + pitch, entry, pitch)
                tall = max(tall, _lines_of(ink, entry))
                x += widths[column] + apart
            y += pitch * (tall + 1 + rng.choice((0.3, 0.6, 1.0)))
        return entries

    def _table(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """A table: a heading above every column, a name before every row; a third have keys and values above."""
        across = rng.randrange(1, 8)
        rows = max(2, count // (1 if across < 3 else 2))
        headings = self._headings(rng, across)
        names = self._row_names(rng, manner, rows, headings)
        across, rows = len(headings), len(names)
        # A column of its own kind each, or the same kind in all of them, as in timetables.
        kinds = [rng.choice(_CELL_KINDS) for _ in headings]
        if rng.random() < 0.4:
            kinds = [kinds[0]] * across
        grid = [[draw_value(rng, kind, manner, self.words) for kind in kinds] for _ in names]
        if rng.random() < 0.3:
            # Values that stand in several cells.
            few = [rng.choice(row) for row in grid[:4]]
            grid = [[rng.choice(few) if rng.random() < 0.4 else value for value in row] for row in grid]
        pitch = ink.size * rng.uniform(1.25, 1.9)
        x0, y0, apart = rng.uniform(4, 60), rng.uniform(4, 40), rng.uniform(16, 70)
        entries: list[Entry] = []
        if self.settings.distractors and rng.random() < 0.35:
            for entry in self._entries(rng, manner, rng.randrange(1, 5)):
                x, indices = ink.put(x0, y0, entry.key + ": ")
                entry.named = indices[: len(entry.key)]
                _, entry.answered = ink.put(x, y0, entry.value)
                entries.append(entry)
                y0 += pitch
            y0 += pitch * rng.uniform(0.2, 1.5)
        corner = self._phrase(rng, []).capitalize() if rng.random() < 0.4 else ""
        columns = [[corner, *names], *([heading, *cells] for heading, *cells in zip(headings, *grid, strict=True))]
        if rng.random() < 0.15:
            # The names of the rows need not come first.
            columns.insert(rng.randrange(1, len(columns)), columns.pop(0))
        usual = rng.choice((0.0, 0.0, 0.5, 1.0))
        placed: dict[int, list[np.ndarray]] = {}
        tops = [y0 + pitch * row for row in range(rows + 1)]
        texts: list[list[tuple[float, str, int]]] = [[] for _ in tops]
        left = x0
        for number, column in enumerate(columns):
            shift = usual if rng.random() < 0.7 else rng.choice((0.0, 0.5, 1.0))
            width = max(map(ink.width, column))
            for row, text in enumerate(column):
                texts[row].append((left + shift * (width - ink.width(text)), text, number))
            left += width + apart * rng.uniform(0.6, 1.4)
        for row, top in enumerate(tops):
            for x, text, number in texts[row]:
                placed.setdefault(number, []).append(ink.put(x, top, text)[1])
        first = next(number for number, column in enumerate(columns) if column[1:] == names)
        others = [number for number in range(len(columns)) if number != first]
        for row, name in enumerate(names, start=1):
            for heading, kind, number in zip(headings, kinds, others, strict=True):
                both = np.concatenate([placed[first][row], placed[number][0]])
                value, answered = columns[number][row], placed[number][row]
                alone = columns[number][1:].count(value) == 1 and value != heading
                row_name = placed[first][row] if alone else answered[:0]
                entries.append(Entry(name, kind, value, None, heading, both, answered, row_name))
        return entries

    def _headings(self, rng: random.Random, count: int) -> list[str]:
        """Draw what stands above the columns of a table: words, weekdays, years or months."""
        draw = rng.random()
        if draw < 0.2:
            days = rng.choice((WEEKDAYS, [day[:3] for day in WEEKDAYS]))
            return list(days[: max(2, count)])
        if draw < 0.3:
            year = rng.randrange(1990, 2030)
            return [str(year + k) for k in range(count)]
        if draw < 0.36:
            first = rng.randrange(12)
            return [MONTHS[(first + k) % 12] for k in range(count)]
        return [key for key, _ in self._keys(rng, count)]

    def _row_names(self, rng: random.Random, manner: Manner, count: int, headings: Sequence[str]) -> list[str]:
        """Draw what stands before the rows of a table: words, times, weekdays, numbers or codes."""
        draw = rng.random()
        taken = {normal_key(heading) for heading in headings}
        if draw < 0.15:
            minutes, step = 5 * rng.randrange(84, 200), rng.choice((15, 20, 30, 35, 45, 50, 60))
            mark = rng.choice("::.")
            return [f"{(minutes + step * k) // 60 % 24:02d}{mark}{(minutes + step * k) % 60:02d}" for k in range(count)]
        if draw < 0.22 and not taken & {normal_key(day) for day in WEEKDAYS}:
            return list(WEEKDAYS[:count])
        if draw < 0.4:
            kind = rng.choice(("code", "date", "person", "integer"))
            names: list[str] = []
            for _ in range(20 * count):
                name = draw_value(rng, kind, manner, self.words)
                if name not in names and len(names) < count:
                    names.append(name)
            return names
        keys = [key for key, _ in self._keys(rng, count + len(headings)) if normal_key(key) not in taken]
        return keys[:count]

    # Questions ----------------------------------------------------------------------------------------------------

    def _questions(self, rng: random.Random, entries: list[Entry]) -> list[PageQuestion]:
        asked = rng.sample(entries, min(self.settings.questions, len(entries)))
        stated = {normal_key(text) for one in entries for text in (one.key, one.column) if text}
        groups = {one.concept.group for one in entries if one.concept}
        questions = []
        for entry in asked:
            absent = rng.random() < self.settings.absent
            none = np.zeros(0, np.int32)
            if not absent and len(entry.row) and rng.random() < self.settings.rows:
                questions.append(self._ask_row(rng, entry))
                continue
            about = self._missing(rng, entry, entries, stated, groups) if absent else entry
            text, pattern, family = self._ask(rng, about)
            questions.append(
                PageQuestion(
                    vary_case(rng, text),
                    ABSENT if absent else entry.value,
                    "absent" if absent else family,
                    pattern,
                    none if absent else entry.named,
                    none if absent else entry.answered,
                )
            )
        return questions

    def _missing(
        self, rng: random.Random, entry: Entry, entries: list[Entry], stated: set[str], groups: set[str]
    ) -> Entry:
        """Make up something like an entry that the sheet does not state."""
        while True:
            ((key, concept),) = self._keys(rng, 1)
            words = set(normal_key(key).split())
            fresh = normal_key(key) not in stated and not any(words >= set(one.split()) for one in stated)
            if fresh and not (concept and concept.group in groups):
                break
        if not entry.column:
            return Entry(key, entry.kind, "", concept)
        row, column = (key, entry.column) if rng.random() < 0.5 else (entry.key, key)
        return Entry(row, entry.kind, "", None, column)

    def _ask_row(self, rng: random.Random, entry: Entry) -> PageQuestion:
        """Ask which row of a table has a value."""
        pattern = choose_wording(rng, FAMILIES["row"], self.settings.wordings) or "{c} {v}"
        text = vary_case(rng, pattern.format(c=asked_key(rng, entry.column), v=entry.value))
        named = np.concatenate([entry.named[~np.isin(entry.named, entry.row)], entry.answered])
        return PageQuestion(text, entry.key, "row", pattern, named, entry.row)

    def _ask(self, rng: random.Random, entry: Entry) -> tuple[str, str, str]:
        """Ask for an entry: the question, its pattern and its family."""
        split = self.settings.wordings
        key = asked_key(rng, entry.key)
        if entry.column:
            pattern = choose_wording(rng, FAMILIES["cell"], split) or "{c} {r}"
            return pattern.format(c=asked_key(rng, entry.column), r=key), pattern, "cell"
        family = "field"
        if entry.concept and rng.random() < self.settings.synonyms:
            family = "synonym"
            whole = [one for one in entry.concept.questions if is_heldout_question(one) == (split == "heldout")]
            if whole and rng.random() < 0.5:
                question = rng.choice(whole)
                return question, question, family
            key = rng.choice(entry.concept.nouns)
        of_kind = f"field_{entry.kind}"
        patterns = FAMILIES[of_kind] if of_kind in FAMILIES and rng.random() < 0.4 else FAMILIES["field"]
        pattern = choose_wording(rng, patterns, split) or choose_wording(rng, FAMILIES["field"], split) or "{k}"
        return pattern.format(k=key), pattern, family


def _lines_of(ink: _Ink, entry: Entry) -> int:
    """How many lines the value of an entry was printed on."""
    starts = np.cumsum([0, *map(len, ink.texts)])
    return len(set(np.searchsorted(starts, entry.answered, side="right").tolist()))
