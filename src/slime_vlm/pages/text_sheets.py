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
_STATEMENTS = (
    ("The", "is", "."),
    ("The", "is given as", "."),
    ("Your", "is", "."),
    ("Our", "was", "."),
    ("Please note that the", "is now", "."),
    ("For", "we have noted", "."),
    ("As to", "the file says", "."),
    ("We confirm the", "of", "."),
    ("", ":", ""),
    ("It has a", "of", "."),
    ("This", "amounts to", "."),
    ("We have set the", "to", "."),
)
"""What running text says before a key, between key and value, and after it."""

_TURNED = (
    ("At", "the", "begins."),
    ("With", "as", "all is said."),
    ("", "is the", "."),
    ("We have", "as your", "."),
    ("Ask for", "as the", "."),
)
"""The same where the value comes first."""

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
        layouts: Shares of "beside", "above", "table" and "several", a page of several blocks.
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
    layouts: tuple[tuple[str, float], ...] = (("beside", 0.15), ("above", 0.15), ("table", 0.2), ("several", 0.5))
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
        self.lines: list[int] = []
        self.count = 0

    def width(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return float(_WIDTHS[[min(ord(c), 0x24F) for c in text]].sum()) * self.size

    def put(self, x: float, y: float, text: str, goes_on: bool = False) -> tuple[float, np.ndarray]:
        """Print a text, a line or more of the last one; return where it ends, and the indices of its characters."""
        self.lines.append(self.lines[-1] if goes_on else self.lines[-1] + 1 if self.lines else 0)
        widths = _WIDTHS[np.array([min(ord(c), 0x24F) for c in text], int)] * self.size
        ends = x + np.cumsum(widths)
        starts = ends - widths
        tops = np.full(len(text), y)
        self.boxes.append(np.stack([starts, tops, ends, tops + 1.2 * self.size], 1).astype(np.float32))
        self.texts.append(text)
        indices = np.arange(self.count, self.count + len(text), dtype=np.int32)
        self.count += len(text)
        return x + float(widths.sum()), indices

    def add(self, other: _Ink, x: float, y: float) -> tuple[int, float, float]:
        """Print what is on another sheet; return the index of its first character, its lower and its right edge."""
        start, first = self.count, self.lines[-1] + 1 if self.lines else 0
        self.texts += other.texts
        self.boxes += [boxes + np.array([x, y, x, y], np.float32) for boxes in other.boxes]
        self.lines += [line + first for line in other.lines]
        self.count += other.count
        moved = np.concatenate(self.boxes[-len(other.boxes) :])
        return start, float(moved[:, 3].max()), float(moved[:, 2].max())


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
            "several": self._several,
        }[rng.choices(names, shares)[0]]
        ink = _Ink(rng.uniform(17.0, 28.0))
        entries = layout(rng, ink, draw_manner(rng), lines)
        boxes = np.concatenate(ink.boxes)
        counts = [len(text) for text in ink.texts]
        right, bottom = float(boxes[:, 2].max()), float(boxes[:, 3].max())
        return TextPage(
            characters="".join(ink.texts),
            boxes=boxes,
            lines=np.repeat(np.array(ink.lines, np.int32), counts),
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
        # Keys to the left or to the right of their column, and values from one edge on or up to one, far away.
        keys_right, values_right = aligned and rng.random() < 0.2, aligned and rng.random() < 0.25
        far = rng.uniform(4, 40) if rng.random() < 0.6 else rng.uniform(40, 400)
        for begin in range(0, count, half):
            part = entries[begin : begin + half]
            key_wide = max(ink.width(one.key + separator) for one in part)
            edge = left + key_wide + far
            value_wide = max(ink.width(one.value) for one in part)
            y = y0
            for row, entry in enumerate(part):
                if extra[row]:
                    # Distractors of the first column run into the second one's ground, as headings do.
                    if begin == 0:
                        ink.put(x0, y, self._distractor(rng, entries))
                    y += pitch
                start = left + (key_wide - ink.width(entry.key + separator)) * keys_right
                x, indices = ink.put(start, y, entry.key + separator)
                entry.named = indices[: len(entry.key)]
                gap = 0.0 if separator.endswith(" ") and rng.random() < 0.8 else 0.36 * ink.size
                at = edge + (value_wide - ink.width(entry.value)) * values_right if aligned else x + gap
                end = self._put_value(rng, ink, at, y, entry, pitch)
                widest = max(widest, end)
                # A second line of the value; those of both columns keep step.
                y += pitch * (2 if columns == 1 and _lines_of(ink, entry) > 1 else 1)
                if columns == 2 and _lines_of(ink, entry) > 1:
                    y += pitch
            left = widest + rng.uniform(24, 80)
        return entries

    def _above(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """Keys above their values, as in the boxes of a form, or below them, as under a signature."""
        entries = self._entries(rng, manner, count)
        across = min(count, rng.randrange(1, 6))
        pitch = ink.size * rng.uniform(1.2, 1.6)
        y = rng.uniform(4, 40)
        x0, apart = rng.uniform(4, 60), rng.uniform(16, 80)
        shift, indent = rng.choice((0.0, 0.0, 0.0, 0.5, 0.5, 1.0)), rng.choice((0.0, 0.0, 0.0, 12.0))
        narrow, is_below = rng.random() < 0.5, rng.random() < 0.1
        for begin in range(0, count, across):
            row = entries[begin : begin + across]
            wraps = [(_in_lines(rng, one.key, narrow), _in_lines(rng, one.value, narrow)) for one in row]
            # Values of a row begin at one height, or right below their keys.
            high = max(len(keys) for keys, _ in wraps) if rng.random() < 0.5 else 0
            x, tall = x0, 0
            for entry, (keys, values) in zip(row, wraps, strict=True):
                wide = max(map(ink.width, (*keys, *values))) + indent
                upper, lower = (values, keys) if is_below else (keys, values)
                parts = [
                    self._put_lines(ink, x, y, pitch, upper, wide, shift),
                    self._put_lines(ink, x + indent, y + pitch * max(high, len(upper)), pitch, lower, wide, shift),
                ]
                entry.answered, entry.named = parts if is_below else reversed(parts)
                tall = max(tall, max(high, len(upper)) + len(lower))
                x += wide + apart
            y += pitch * (tall + rng.choice((0.3, 0.6, 1.0)))
        return entries

    def _put_lines(
        self, ink: _Ink, x: float, y: float, pitch: float, lines: Sequence[str], wide: float, shift: float
    ) -> np.ndarray:
        """Print lines below each other, to the left, in the middle or to the right of a column."""
        at = ((x + shift * (wide - ink.width(line)), y + row * pitch, line) for row, line in enumerate(lines))
        return np.concatenate([ink.put(*one)[1] for one in at])

    def _prose(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """Running text that states a few values, and much else."""
        entries = self._entries(rng, manner, min(count, 6))
        pitch, wide = ink.size * rng.uniform(1.15, 1.6), ink.size * rng.uniform(14, 40)
        x0, y = rng.uniform(4, 60), rng.uniform(4, 40)
        x = x0
        for entry in entries:
            for _ in range(rng.choice((0, 1, 1, 2))):
                text = " ".join(self.words.word(rng) for _ in range(rng.randrange(4, 14))).capitalize() + "."
                x, y, _ = self._run_on(ink, x0, x, y, pitch, wide, text)
            before, between, after = rng.choice(_STATEMENTS)
            order = (before, entry.key, between, entry.value, after)
            if rng.random() < 0.25:
                before, between, after = rng.choice(_TURNED)
                order = (before, entry.value, between, entry.key, after)
            for text in order:
                if not text:
                    continue
                x, y, found = self._run_on(ink, x0, x, y, pitch, wide, text)
                if text == entry.value:
                    entry.answered = found
                elif text == entry.key:
                    entry.named = found
            x += 0.28 * ink.size
        return entries

    def _run_on(
        self, ink: _Ink, x0: float, x: float, y: float, pitch: float, wide: float, text: str
    ) -> tuple[float, float, np.ndarray]:
        """Go on with running text, line after line; return where it ends, and the indices of its characters.

        A text that begins with a mark follows without a space.
        """
        found = []
        for number, word in enumerate(text.split(" ")):
            joined = number == 0 and not word[:1].isalnum() and word[:1] in ".,:;"
            gap = 0.0 if x == x0 or joined else 0.28 * ink.size
            if x > x0 and x + gap + ink.width(word) > x0 + wide and not joined:
                x, y, gap = x0, y + pitch, 0.0
            elif gap:
                space = ink.put(x, y, " ", goes_on=True)[1]
                if number:
                    found.append(space)
            x, indices = ink.put(x + gap, y, word, goes_on=x > x0)
            found.append(indices)
        return x, y, np.concatenate(found)

    def _several(self, rng: random.Random, ink: _Ink, manner: Manner, count: int) -> list[Entry]:
        """A page of several blocks below and beside each other, with headings, as documents are."""
        blocks = [self._beside, self._beside, self._above, self._above, self._table, self._prose]
        entries: list[Entry] = []
        taken: set[str] = set()
        groups: set[str] = set()
        top, row_top, right = rng.uniform(4, 60), 0.0, 0.0
        for _ in range(rng.randrange(2, 6)):
            part = _Ink(ink.size * rng.choice((1.0, 1.0, 1.0, 0.85, 1.2)))
            found = rng.choice(blocks)(rng, part, manner, max(2, round(count * rng.uniform(0.1, 0.5))))
            named = {normal_key(text) for one in found for text in (one.key, one.column) if text}
            about = {one.concept.group for one in found if one.concept}
            if taken & named or groups & about:
                continue
            taken |= named
            groups |= about
            if rng.random() < 0.4:
                head = _Ink(part.size * rng.uniform(1.0, 1.9))
                head.put(rng.uniform(0, 60), 0.0, self._phrase(rng, []).capitalize())
                _, top, _ = ink.add(head, 0.0, top)
                top += 0.5 * ink.size
            is_beside = right > 0 and rng.random() < 0.3
            row_top = row_top if is_beside else top
            start, bottom, right = ink.add(part, right + rng.uniform(20, 90) if is_beside else 0.0, row_top)
            for one in found:
                one.named, one.answered, one.row = (array + start for array in (one.named, one.answered, one.row))
            entries += found
            top = max(top, bottom + rng.uniform(0.3, 3.0) * ink.size)
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
    lines = np.repeat(ink.lines, [len(text) for text in ink.texts])
    return len(set(lines[entry.answered].tolist()))


def _in_lines(rng: random.Random, text: str, narrow: bool) -> list[str]:
    """Cut a text into lines, in a narrow column after nearly every word."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and not (narrow and rng.random() < 0.7 and len(lines[-1]) > 3):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
