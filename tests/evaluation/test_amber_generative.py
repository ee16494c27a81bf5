"""AMBER's generative scores, by hand, with nouns and likeness given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nltk
import pytest

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Task
from slime_vlm.evaluation.metrics.amber_generative import (
    Named,
    Words,
    generative_scores,
    lacking_for_descriptions,
    named_by,
)
from slime_vlm.evaluation.records import load_records
from slime_vlm.evaluation.report import table
from slime_vlm.evaluation.scoring import score_task
from tests.evaluation.test_benchmarks import FIXTURES

BENCHMARK = BENCHMARKS["amber_generative"]
WORDS = Words({"sky": [], "ship": ["boat"], "bird": ["gull"], "sun": [], "light": []}, frozenset({"light"}))


def _alike(one: str, other: str) -> bool:
    return {one, other} == {"gull", "bird"} or {one, other} == {"sun", "sky"}


@pytest.mark.parametrize(
    ("nouns", "named"),
    [
        # A ship is named once, though it is listed twice, and by an associated word. A tree is no object of AMBER.
        (["boat", "ship", "tree"], Named(2, 0, (False, True, False), (False,))),
        # A gull stands for the expected bird. It is wrong, and so is a noun of the list that nothing is like.
        (["gull"], Named(1, 1, (False, False, False), (True,))),
        # The sun is like the sky, which is there. A safe word is an object, and never wrong.
        (["sun", "light"], Named(2, 0, (True, False, False), (False,))),
        # Case counts: Sky is not on the list.
        (["Sky"], Named(0, 0, (False, False, False), (False,))),
    ],
)
def test_objects_that_nouns_name(nouns: list[str], named: Named) -> None:
    assert named_by(nouns, ["sky", "ship", "ship"], ["bird"], WORDS, _alike) == named


def test_scores() -> None:
    rows = [Named(2, 0, (True, True), (False,)), Named(3, 1, (False, False), (True,))]
    # 1 of 5 nouns, 2 of 4 objects, 1 of 2 descriptions (of 2.001, as officially), 1 of 2 expected hallucinations.
    assert generative_scores(rows) == {"CHAIR": 20.0, "Cover": 50.0, "Hal": 50.0, "Cog": 50.0}
    assert generative_scores([]) == {"CHAIR": 0.0, "Cover": 0.0, "Hal": 100.0, "Cog": 0.0}


def _data(tmp_path: Path, objects: list[str]) -> Path:
    for name in ("query_generative.json", "annotations.json"):
        target = tmp_path / "amber_generative" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((FIXTURES / "amber_generative" / name).read_bytes())
    (tmp_path / "amber_generative/relation.json").write_text(json.dumps({one: [] for one in objects}))
    (tmp_path / "amber_generative/safe_words.txt").write_text("light\nsign")
    return tmp_path


def test_the_word_lists_travel_with_the_predictions(tmp_path: Path) -> None:
    objects = ["square", "circle", "sky", "bird", "person", "traffic light"]
    rows = list(load_records(Task(BENCHMARK, "query_generative"), _data(tmp_path, objects)).rows)
    official = [BENCHMARK.ask(row, index).target["official"] for index, row in enumerate(rows)]
    assert (official[1]["truth"], official[1]["hallu"]) == (["square", "square", "sky"], ["sky", "bird"])
    assert (list(official[1]["relations"]), official[1]["safe"]) == (objects, ["light", "sign"])


def test_an_object_without_relations_is_refused(tmp_path: Path) -> None:
    rows = list(load_records(Task(BENCHMARK, "query_generative"), _data(tmp_path, ["square", "circle"])).rows)
    with pytest.raises(DataError, match=r"record 1 has the object 'sky', which is not in relation\.json"):
        BENCHMARK.ask(rows[1], 1)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": "1", "prediction": "A square.", "target": {"truth": ["square"], "hallu": []}}
    result = score_task(Task(BENCHMARK, "query_generative"), [row])
    assert "CHAIR" not in result.metrics
    assert table([result]).splitlines()[-1] == (
        "AMBER (generative): CHAIR, Cover, Hal and Cog need relation.json and safe_words.txt of AMBER's repository "
        "beside the records when questions are asked"
    )
    monkeypatch.setattr(nltk.data, "path", [])
    lacking_for_descriptions.cache_clear()
    assert lacking_for_descriptions().endswith("downloader punkt_tab averaged_perceptron_tagger_eng wordnet")
    monkeypatch.setitem(sys.modules, "nltk", None)
    lacking_for_descriptions.cache_clear()
    assert lacking_for_descriptions().endswith('need nltk, which is not installed: pip install "slime-vlm[scores]"')
    lacking_for_descriptions.cache_clear()
