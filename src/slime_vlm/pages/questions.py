"""Questions about facts of a page in several wordings, and about things that are not on the page."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slime_vlm.pages.page import ABSENT, Question
from slime_vlm.pages.vocabulary import OUTSIDE, OUTSIDE_ASKS, OUTSIDE_HELDOUT

if TYPE_CHECKING:
    from slime_vlm.pages.sheet import Sheet

OUTSIDE_SHARE = 0.3
"""Of the questions about something absent, the share about things that are on no page at all."""


@dataclass(frozen=True)
class Fact:
    """A fact that a page states, or could have stated.

    Attributes:
        wordings: Complete questions that ask for it.
        answer: The printed text that answers; `ABSENT` for something the page does not state.
        key_runs: Runs that name it.
        value_run: Run that answers, None when nothing does.
        name: The part of its questions that keeps its capitals, for example a side "AB".
    """

    wordings: Sequence[str]
    answer: str = ABSENT
    key_runs: tuple[int, ...] = ()
    value_run: int | None = None
    name: str = ""


def vary_case(rng: random.Random, text: str, fixed: str = "") -> str:
    """Vary a question as people do: unchanged, in lower case, capitalised, rarely in capitals, some without full stop.

    Args:
        rng: Source of randomness.
        text: The question.
        fixed: A name within the question that keeps its capitals (a side "AB").
    """
    if text[-1] in "?." and rng.random() < 0.15:
        text = text[:-1]
    draw = rng.random()
    if draw < 0.3:
        before, name, after = text.partition(fixed) if fixed else (text, "", "")
        return before.lower() + name + after.lower()
    if draw < 0.6:
        return text[0].upper() + text[1:]
    if draw < 0.63 and not fixed:
        return text.upper()
    return text


def outside(rng: random.Random, heldout: bool) -> Fact:
    """Return a fact that is on no page. Its words are outside of the vocabulary, so they are spelled in characters."""
    thing = rng.choice(OUTSIDE_HELDOUT if heldout else OUTSIDE)
    return Fact([rng.choice(OUTSIDE_ASKS).format(t=thing)])


def ask(sheet: Sheet, kind: str, facts: Sequence[Fact], absent: Callable[[], Fact | None]) -> list[Question]:
    """Ask different questions about the facts of a page, up to as many as its settings want.

    Args:
        sheet: The page.
        kind: Kind of the page.
        facts: Facts of the page. Every fact is asked once before one is asked again.
        absent: Draws something that the page does not state but could; None if there is nothing.
    """
    rng, count, absent_share = sheet.rng, sheet.settings.questions, sheet.settings.absent
    questions: list[Question] = []
    seen: set[str] = set()
    order: list[Fact] = []
    missing = sum(rng.random() < absent_share for _ in range(count))
    for _ in range(6 * count):
        if len(questions) == count:
            break
        # Questions about absent things are counted beforehand. A page of few facts soon repeats itself, and would
        # otherwise fill up with them.
        fact = None
        if missing or not facts:
            fact = outside(rng, sheet.heldout) if rng.random() < OUTSIDE_SHARE else absent()
        if fact is None:
            if not facts:
                continue
            if not order:
                order = list(facts)
                rng.shuffle(order)
            fact = order.pop()
        text = vary_case(rng, rng.choice(fact.wordings), fact.name)
        plain = text.lower().rstrip("?.")
        if plain not in seen:
            seen.add(plain)
            values = () if fact.value_run is None else (fact.value_run,)
            missing -= not values
            questions.append(Question(text, fact.answer, kind, fact.key_runs, values))
    rng.shuffle(questions)
    return questions
