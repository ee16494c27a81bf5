"""Objects that descriptions name, by hand."""

from __future__ import annotations

import pytest

from slime_vlm.evaluation.benchmarks import BENCHMARKS, Scored
from slime_vlm.evaluation.metrics.objects import named_objects


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A dog, and two cats.", {"dog", "cat"}),
        ("People stand by the traffic\nlights.", {"person", "traffic light"}),
        ("Firemen with knives and berries", {"fireman", "knife", "berry"}),
        # A part of a word does not count, and neither does a synonym.
        ("A hotdog, cattle and a puppy", set()),
        ("There is no dog.", {"dog"}),
        ("", set()),
    ],
)
def test_words_of_the_list_in_singular_and_plural(text: str, found: set[str]) -> None:
    objects = ["dog", "cat", "person", "traffic light", "fireman", "knife", "berry"]
    assert named_objects(text, objects) == found


def test_an_object_without_letters_is_never_named() -> None:
    assert named_objects("a  1 s", ["", "1"]) == set()


def test_generative_amber_by_hand() -> None:
    benchmark = BENCHMARKS["amber_generative"]
    record = {
        "id": 2,
        "image": "x.png",
        "query": "Describe this image.",
        "truth": ["ship", "ship", "sky"],
        "hallu": ["bird", "sky"],
    }
    target = benchmark.ask(record, 0).target
    assert target == {"truth": ["ship", "sky"], "hallu": ["bird"]}
    texts = ("Ships under the sky.", "A bird in the sky.", "Nothing.", "Sky.")
    rows = [Scored(text, text, target, benchmark.score(text, target)) for text in texts]
    assert [row.score for row in rows] == [1.0, 0.5, 0.0, 0.5]
    # 4 of 8 objects, 1 of 4 birds, 1 of 4 answers.
    assert benchmark.summarise(rows) == {
        "objects named": 50.0,
        "expected hallucinations named": 25.0,
        "answers with an expected hallucination": 25.0,
    }
