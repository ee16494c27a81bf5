"""AMBER (generative part): descriptions, scored by which of the listed objects they name.

The official numbers (CHAIR, Cover, Hal, Cog) need a noun tagger, and word vectors for synonyms. Here a listed object
counts if its word occurs in the text. CHAIR is therefore missing: it needs all nouns that are mentioned. The other
three have other names here, because synonyms and hallucinations that the annotators did not expect are not detected.
"""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.evaluation.benchmarks.amber import ANNOTATIONS
from slime_vlm.evaluation.benchmarks.benchmark import Benchmark, Question, Record, Scored, Source, Target
from slime_vlm.evaluation.metrics.objects import named_objects


def _ask(record: Record, index: int) -> Question:
    truth = sorted({str(one) for one in record["truth"]})
    # A few objects are in both lists. An object that is present is not a hallucination.
    absent = sorted({str(one) for one in record["hallu"]} - set(truth))
    return Question(str(record["id"]), str(record["query"]), (record["image"],), {"truth": truth, "hallu": absent})


def _score(prediction: str, target: Target) -> float:
    return _share([len(named_objects(prediction, target["truth"]))], [len(target["truth"])])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    truth = [len(named_objects(row.prediction, row.target["truth"])) for row in rows]
    absent = [len(named_objects(row.prediction, row.target["hallu"])) for row in rows]
    return {
        "objects named": 100 * _share(truth, [len(row.target["truth"]) for row in rows]),
        "expected hallucinations named": 100 * _share(absent, [len(row.target["hallu"]) for row in rows]),
        "answers with an expected hallucination": 100 * _share([int(number > 0) for number in absent], [1] * len(rows)),
    }


def _share(parts: Sequence[int], wholes: Sequence[int]) -> float:
    return sum(parts) / sum(wholes) if sum(wholes) else 0.0


BENCHMARK = Benchmark(
    name="amber_generative",
    title="AMBER (generative, by lists)",
    source=Source("junyangwang0410/AMBER", "query_generative", joined=ANNOTATIONS),
    licence="Apache-2.0*",
    metric="share of the listed objects that are named; not the official Cover",
    fields=("id", "image", "query", "truth", "hallu"),
    ask=_ask,
    score=_score,
    summarise=_summarise,
    main="objects named",
    max_new_tokens=512,
    note="Only listed words count, singular or plural: no tagger, no synonyms. Not AMBER's CHAIR, Cover, Hal and Cog.",
)
