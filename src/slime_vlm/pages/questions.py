"""Questions about what a page states, in several wordings, and about what it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slime_vlm.pages.page import ABSENT, Question


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


def ask(
    rng: random.Random,
    kind: str,
    facts: Sequence[Fact],
    absent: Callable[[], Fact | None],
    count: int,
    absent_share: float,
) -> list[Question]:
    """Ask up to `count` different questions about the facts of a page.

    Args:
        rng: source of randomness.
        kind: kind of the page.
        facts: what the page states; every fact is asked before one is asked again.
        absent: draws something that the page does not state, or None when there is nothing.
        count: questions wanted.
        absent_share: share of them about something absent.
    """
    questions: list[Question] = []
    seen: set[str] = set()
    order: list[Fact] = []
    missing = sum(rng.random() < absent_share for _ in range(count))
    for _ in range(6 * count):
        if len(questions) == count:
            break
        # Absent things are counted beforehand: a page of few facts soon repeats itself and would fill up with them.
        fact = absent() if missing or not facts else None
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
