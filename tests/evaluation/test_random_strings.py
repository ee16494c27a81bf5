"""No scorer fails, whatever a model writes: 10,000 random strings through every benchmark."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from slime_vlm.evaluation.benchmarks import BENCHMARKS, Benchmark, Scored
from tests.evaluation.test_benchmarks import questions_of

COUNT = 10_000
PIECES = (
    "yes", "No", "A", "B.", "(C)", "the answer is", "The answer is A.", "\\frac{1}{2}", "\\boxed{", "}", "{", "\\sqrt",
    "12.5%", "1,000", "-", ".", "...", "٣", "½", "\uff11\uff12", "İ", "ß", "不", "🙂", "\u202e", "\x00", "\n", "\t",
    "nan", "inf", "1e999", "0x10", "''", '"', "[", "]", "=", "x =", "^", "**", "(1,2)", "Rating: 3", "\ud800",
)  # fmt: skip
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGH .,!?'",
    "0123456789.,%-+eE()/ ",
    "".join(map(chr, range(0x20, 0x250))),
    "\\{}[]()^_$%=<>|&*#@~`\"';:!?.,-+/ ",
    "是不有方块。，？：①Ⅳ一二",  # noqa: RUF001
)


def random_strings(seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    strings = [""]
    while len(strings) < COUNT:
        if draw.random() < 0.5:
            alphabet = draw.choice(ALPHABETS)
            strings.append("".join(draw.choices(alphabet, k=draw.choice((1, 2, 5, 20, 80)))))
        else:
            strings.append(draw.choice(("", " ")).join(draw.choices(PIECES, k=draw.randint(1, 8))))
    return strings


@pytest.fixture(scope="module")
def strings() -> list[str]:
    return random_strings()


def test_the_strings_are_many_and_of_every_kind(strings: list[str]) -> None:
    assert len(strings) == COUNT
    assert "" in strings
    assert any(not text.isascii() for text in strings)
    assert any("\ud800" in text for text in strings)


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_no_scorer_fails(benchmark: Benchmark, strings: list[str]) -> None:
    questions, _ = questions_of(benchmark)
    rows = []
    for index, text in enumerate(strings):
        question = questions[index % len(questions)]
        score = benchmark.score(text, question.target)
        assert score is None or 0.0 <= score <= 1.0, text
        rows.append(Scored(question.id, text, question.target, score))
    if benchmark.name == "mme":
        # More than two answers of an image are an error of the data there.
        rows = rows[: len(questions)]
    metrics = benchmark.summarise(rows)
    assert all(value >= 0.0 for value in metrics.values())
    for other in benchmark.other_rules.values():
        others = [replace(row, score=other.score(row.prediction, row.target)) for row in rows[:1000]]
        assert all(row.score is None or 0.0 <= row.score <= 1.0 for row in others)
        assert all(value >= 0.0 for value in other.summarise(others).values())
    if benchmark.judged:
        for row in rows[:1000]:
            benchmark.judged.request(row.prediction, row.target, benchmark.judged.template)
            benchmark.judged.read(row.prediction, row.prediction, row.target)
    if benchmark.submission:
        for row in rows[:1000]:
            assert benchmark.submission.entry(row.prediction, row.target)
