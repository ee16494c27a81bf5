"""AMBER (generative part): descriptions, scored by which of the listed objects they name.

The official numbers (CHAIR, Cover, Hal, Cog) need AMBER's word lists, a noun tagger, and word vectors for synonyms.
They are there where all of these are. The other numbers need nothing: a listed object counts if its word occurs in the
text. They have names of their own, because synonyms and hallucinations that nobody expected are not detected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slime_vlm.errors import DataError
from slime_vlm.evaluation.benchmarks.amber import ANNOTATIONS
from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target
from slime_vlm.evaluation.metrics.amber_generative import (
    Words,
    alike,
    generative_scores,
    lacking_for_descriptions,
    named_by,
    nouns_of,
)
from slime_vlm.evaluation.metrics.objects import named_objects

_RELATIONS, _SAFE = "relation.json", "safe_words.txt"


def _ask(record: Record, index: int) -> Question:
    truth = sorted({str(one) for one in record["truth"]})
    # A few objects are in both lists. An object that is present is not a hallucination.
    absent = sorted({str(one) for one in record["hallu"]} - set(truth))
    target: Target = {"truth": truth, "hallu": absent}
    relations, safe = record.get(_RELATIONS), record.get(_SAFE)
    if relations is not None and safe is not None:
        target["official"] = _official(record, index, relations, safe)
    return Question(str(record["id"]), str(record["query"]), (record["image"],), target)


def _official(record: Record, index: int, relations: Mapping[str, Any], safe: str) -> dict[str, Any]:
    """Return what the official rule knows: both lists as they come, and the word lists."""
    lists = {name: [str(one) for one in record[name]] for name in ("truth", "hallu")}
    unknown = [one for objects in lists.values() for one in objects if one not in relations]
    if unknown:
        raise DataError(
            f"AMBER: record {index} has the object {unknown[0]!r:.40}, which is not in {_RELATIONS}; "
            "take both files from the same copy of AMBER's repository"
        )
    return {**lists, "relations": dict(relations), "safe": safe.split("\n")}


def _score(prediction: str, target: Target) -> float:
    return _share([len(named_objects(prediction, target["truth"]))], [len(target["truth"])])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    truth = [len(named_objects(row.prediction, row.target["truth"])) for row in rows]
    absent = [len(named_objects(row.prediction, row.target["hallu"])) for row in rows]
    official = {} if _lacking(rows) else _official_scores(rows)
    return {
        **official,
        "objects named": 100 * _share(truth, [len(row.target["truth"]) for row in rows]),
        "expected hallucinations named": 100 * _share(absent, [len(row.target["hallu"]) for row in rows]),
        "answers with an expected hallucination": 100 * _share([int(number > 0) for number in absent], [1] * len(rows)),
    }


def _official_scores(rows: Sequence[Scored]) -> dict[str, float]:
    # The word lists are the same in every row.
    lists = rows[0].target["official"]
    words = Words(lists["relations"], frozenset(lists["safe"]))
    found = []
    for row in rows:
        objects = row.target["official"]
        found.append(named_by(nouns_of(row.prediction), objects["truth"], objects["hallu"], words, alike))
    return generative_scores(found)


def _lacking(rows: Sequence[Scored]) -> str:
    if not all("official" in row.target for row in rows):
        return (
            f"CHAIR, Cover, Hal and Cog need {_RELATIONS} and {_SAFE} of AMBER's repository beside the records when "
            "questions are asked"
        )
    return lacking_for_descriptions()


def _share(parts: Sequence[int], wholes: Sequence[int]) -> float:
    return sum(parts) / sum(wholes) if sum(wholes) else 0.0


BENCHMARK = Benchmark(
    name="amber_generative",
    title="AMBER (generative)",
    source=Source("junyangwang0410/AMBER", "query_generative", joined=ANNOTATIONS, beside=(_RELATIONS, _SAFE)),
    licence="Apache-2.0*",
    metric="share of the listed objects that are named; with packages CHAIR, Cover, Hal, Cog",
    fields=("id", "image", "query", "truth", "hallu"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="objects named",
    max_new_tokens=512,
    note="CHAIR, Cover, Hal and Cog are official. In the other numbers only listed words count, and no synonyms.",
    lacking=_lacking,
)
