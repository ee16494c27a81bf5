"""Questions about what a page states, in several wordings, and about what it does not."""

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
"""Share of the questions about something absent that no page is about at all."""


@dataclass(frozen=True)
class Fact:
    """Something that a page states, or could have stated.

    Attributes:
        wordings: questions that ask for it, complete.
        answer: the printed text that answers; `ABSENT` for something the page does not state.
        key_runs: runs that name it.
        value_run: run that answers, None when nothing does.
        name: the part of its questions that keeps its capitals, a side "AB" for one.
    """

    wordings: Sequence[str]
    answer: str = ABSENT
    key_runs: tuple[int, ...] = ()
    value_run: int | None = None
    name: str = ""


def vary_case(rng: random.Random, text: str, fixed: str = "") -> str:
    """Write a question as people do: as it is, all lower, first letter capital, rarely in capitals, some without end.

    Args:
        rng: source of randomness.
        text: the question.
        fixed: a name within the question that keeps its capitals (a side "AB").
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
    """A question about something that no page is about, with words that are spelled out in characters."""
    thing = rng.choice(OUTSIDE_HELDOUT if heldout else OUTSIDE)
    return Fact([rng.choice(OUTSIDE_ASKS).format(t=thing)])


def ask(sheet: Sheet, kind: str, facts: Sequence[Fact], absent: Callable[[], Fact | None]) -> list[Question]:
    """Ask different questions about the facts of a page, up to as many as its settings want.

    Args:
        sheet: the page.
        kind: kind of the page.
        facts: what the page states; every fact is asked before one is asked again.
        absent: draws something that the page does not state but might have, or None when there is nothing.
    """
    rng, count, absent_share = sheet.rng, sheet.settings.questions, sheet.settings.absent
    questions: list[Question] = []
    seen: set[str] = set()
    order: list[Fact] = []
    missing = sum(rng.random() < absent_share for _ in range(count))
    for _ in range(6 * count):
        if len(questions) == count:
            break
        # Absent things are counted beforehand: a page of few facts soon repeats itself and would fill up with them.
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
