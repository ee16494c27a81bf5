"""Sheets of keys and values in an open vocabulary, laid out without a renderer: hundreds a second, as text alone.

Keys stand beside their values, above them, in running text, or head the rows and columns of a table. Half of the keys
are drawn from a dictionary, half from the thesaurus of what documents state, so that people's other words for them are
learnt, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from slime_vlm.pages.browser.asking import asked_key, is_heldout_question
from slime_vlm.pages.browser.values import draw_manner
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.questions import vary_case
from slime_vlm.pages.readable import PageQuestion
from slime_vlm.pages.sheet_ink import Ink
from slime_vlm.pages.sheet_layouts import Entry, SheetLayouts, SheetSettings
from slime_vlm.pages.splits import choose_wording, normal_key
from slime_vlm.pages.text_page import TextPage
from slime_vlm.pages.wordings import FAMILIES


class TextSheets:
    """Sheets by seed.

    Args:
        words: The whole word list, see `word_lists.read_words`.
        settings: What they look like and ask.
    """

    def __init__(self, words: Sequence[str], settings: SheetSettings | None = None) -> None:
        self.settings = settings or SheetSettings()
        self.layouts = SheetLayouts(words, self.settings)

    def page(self, seed: int) -> TextPage:
        """Lay out the sheet of a seed."""
        settings = self.settings
        rng = random.Random(f"sheet {settings.keys} {seed}")
        low, high = settings.lines
        lines = round(low * (high / low) ** rng.random())
        layout = self.layouts.choose(rng)
        ink = Ink(rng.uniform(17.0, 28.0))
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
            ((key, concept),) = self.layouts.keys(rng, 1)
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
