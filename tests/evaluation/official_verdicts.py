"""The official functions of the recorded verdicts, and ours that must say the same.

`python -m tests.evaluation.official_verdicts` prints the table of docs/evaluation.md. With a folder as its argument it
replays the files of that folder.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.evaluation.benchmarks.mmbench import BENCHMARK as MMBENCH
from slime_vlm.evaluation.metrics.anls import anls, anls_llava
from slime_vlm.evaluation.metrics.choices import (
    LETTERS,
    first_character,
    scienceqa_letter,
    scienceqa_letter_lmms_eval,
)
from slime_vlm.evaluation.metrics.containing import ocr_match
from slime_vlm.evaluation.metrics.exact import gqa_match, gqa_match_lmms_eval
from slime_vlm.evaluation.metrics.mathvision import mathvision_match
from slime_vlm.evaluation.metrics.mmbench import hr_bench_letter, mmbench_letter, mmbench_letter_lmms_eval
from slime_vlm.evaluation.metrics.mmmu import mmmu_letter, mmmu_letter_lmms_eval, open_match
from slime_vlm.evaluation.metrics.ranked_letter import ranked_letter
from slime_vlm.evaluation.metrics.realworld import realworld_letter, realworld_letter_lmms_eval
from slime_vlm.evaluation.metrics.relaxed import relaxed_accuracy, relaxed_accuracy_slime
from slime_vlm.evaluation.metrics.spotting import spotting_match
from slime_vlm.evaluation.metrics.tree_distance import (
    chart_similarity,
    document_similarity,
    html_similarity,
    markdown_similarity,
)
from slime_vlm.evaluation.metrics.vqa import (
    normalise_answer,
    original_vqa_accuracy,
    submitted_vqa_accuracy,
    vqa_accuracy,
    vqa_accuracy_lmms_eval,
)
from slime_vlm.evaluation.metrics.vstar import vstar_letter
from slime_vlm.evaluation.metrics.yes_no import read_mme, read_pope

COMMITTED = Path(__file__).parent / "verdicts"


def _lettered(options: list[str]) -> dict[str, str]:
    return dict(zip(LETTERS, options, strict=False))


def _scienceqa(read: Callable[[str, str], str | None]) -> Callable[..., float]:
    return lambda prediction, count, right: float(read(prediction, LETTERS[:count]) == LETTERS[right])


def _mmmu(read: Callable[[str, list[str], str], tuple[str, bool]]) -> Callable[..., str]:
    def letter(prediction: str, options: list[str]) -> str:
        found, drawn = read(prediction, options, "seed")
        return "RANDOM" if drawn else found

    return letter


def _mmbench_prompt(row: dict[str, Any]) -> str:
    return MMBENCH.ask({"index": 0, "image": "", **row}, 0).prompt


@dataclass(frozen=True)
class Official:
    """An official function whose verdicts were recorded.

    Attributes:
        tasks: The tasks that it scores.
        script: Where the function comes from.
        rule: `default`, the name for `--rule`, or another use.
        ours: Our function, called with the recorded input.
    """

    tasks: str
    script: str
    rule: str
    ours: Callable[..., Any]


_LMMS = "lmms-eval"
_FORMULAS = "HME100k"

OFFICIAL: dict[str, Official] = {
    "evalai_normaliser": Official("submissions", "LLaVA (EvalAI processor)", "default", normalise_answer),
    "textvqa_vizwiz_m4c": Official("textvqa, textvqa_ocr, vizwiz", "LLaVA (M4C evaluator)", "default", vqa_accuracy),
    "vqav2_official_normalised_prediction": Official(
        "vqav2", "VQA authors, prediction normalised as submitted", "default", submitted_vqa_accuracy
    ),
    "vqav2_official_raw_prediction": Official("vqav2", "VQA authors", "part of the default", original_vqa_accuracy),
    "vqav2_lmms_eval": Official("vqav2", _LMMS, "lmms-eval", vqa_accuracy_lmms_eval),
    "gqa_llava": Official("gqa", "LLaVA (converter, then GQA's script)", "default", gqa_match),
    "gqa_lmms_eval": Official("gqa", _LMMS, "lmms-eval", gqa_match_lmms_eval),
    "pope_reader_llava": Official("pope", "LLaVA", "default", read_pope),
    "mme_reader": Official("mme", _LMMS, "default", read_mme),
    "anls_rrc": Official("docvqa, infovqa", "RRC portal (as in lmms-eval)", "default", anls),
    "anls_llava": Official("docvqa, infovqa", "LLaVA (M4C evaluator)", "LLaVA", anls_llava),
    "chartqa_relaxed_finite": Official("chartqa", "lmms-eval, finite numbers", "default", relaxed_accuracy),
    "chartqa_relaxed_lmms_eval": Official("chartqa", _LMMS, "default", relaxed_accuracy),
    "chartqa_relaxed_slime_script": Official("chartqa", "SliME", "slime-script", relaxed_accuracy_slime),
    "ocrbench_authors": Official(
        "ocrbench", "authors", "default", lambda kind, text, right: ocr_match(text, right, formula=kind == _FORMULAS)
    ),
    "ocrbench_lmms_eval": Official(
        "ocrbench",
        _LMMS,
        "lmms-eval",
        lambda kind, text, right: ocr_match(text, right, formula=kind == _FORMULAS, fold=True),
    ),
    "scienceqa_llava": Official("scienceqa", "LLaVA", "default", _scienceqa(scienceqa_letter)),
    "scienceqa_lmms_eval": Official("scienceqa", _LMMS, "lmms-eval", _scienceqa(scienceqa_letter_lmms_eval)),
    "seed_letter_lmms_eval": Official(
        "seed_bench", _LMMS, "default", lambda prediction, right: float(first_character(prediction) == right)
    ),
    "mmmu_letter_authors": Official("mmmu, choices", "authors", "default", _mmmu(mmmu_letter)),
    "mmmu_letter_lmms_eval": Official("mmmu, choices", _LMMS, "lmms-eval", _mmmu(mmmu_letter_lmms_eval)),
    "mmmu_open_authors": Official(
        "mmmu, open", "authors", "default", lambda prediction, answers: open_match(prediction, answers) == 1.0
    ),
    "mmbench_letter_vlmevalkit": Official(
        "mmbench, mmbench_cn",
        "authors (VLMEvalKit)",
        "default",
        lambda text, all_: mmbench_letter(text, _lettered(all_)),
    ),
    "mmbench_letter_lmms_eval": Official(
        "mmbench, mmbench_cn", _LMMS, "lmms-eval", lambda text, all_: mmbench_letter_lmms_eval(text, _lettered(all_))
    ),
    "mmbench_prompt_slime": Official("mmbench", "SliME (prompt)", "default", _mmbench_prompt),
    "hr_bench_letter_lmms_eval": Official(
        "hr_bench_4k, hr_bench_8k", _LMMS, "default", lambda text, all_: hr_bench_letter(text, _lettered(all_))
    ),
    "vstar_letter_lmms_eval": Official("vstar", _LMMS, "default", lambda text, _: vstar_letter(text)),
    "mme_realworld_letter_authors": Official("mme_realworld, mme_realworld_cn", "authors", "default", realworld_letter),
    "mme_realworld_letter_lmms_eval": Official(
        "mme_realworld, mme_realworld_cn", _LMMS, "lmms-eval", lambda text, _: realworld_letter_lmms_eval(text)
    ),
    "video_mme_letter_lmms_eval": Official("video_mme", _LMMS, "default", lambda text, _: ranked_letter(text)),
    "math_vision_open": Official(
        "mathvision, mathvision_test",
        "authors",
        "default",
        lambda text, right: mathvision_match(text, right, {}) == 1.0,
    ),
    "math_vision_options": Official(
        "mathvision, mathvision_test",
        "authors",
        "default",
        lambda text, right, all_: mathvision_match(text, right, _lettered(all_)) == 1.0,
    ),
    "ocrbench_v2_tables_html": Official("ocrbench_v2, tables", "authors", "default", html_similarity),
    "ocrbench_v2_tables_markdown": Official("ocrbench_v2, tables", "authors", "default", markdown_similarity),
    "ocrbench_v2_charts": Official("ocrbench_v2, charts", "authors", "default", chart_similarity),
    "ocrbench_v2_documents": Official("ocrbench_v2, documents", "authors", "default", document_similarity),
    "ocrbench_v2_spotting": Official("ocrbench_v2, text spotting", "authors", "default", spotting_match),
}
"""The official functions by the names of the files that hold their verdicts."""


def verdicts(name: str, folder: Path = COMMITTED) -> Iterator[tuple[list[Any], Any]]:
    """Yield the inputs of one official function with what it returned."""
    plain = folder / f"{name}.jsonl"
    content = plain.read_bytes() if plain.is_file() else gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes())
    for line in content.decode("utf-8").split("\n"):
        if line:
            row = json.loads(line)
            yield row["input"] if isinstance(row["input"], list) else [row["input"]], row["official"]


def same(ours: Any, official: Any) -> bool:
    """Return whether two verdicts agree. Nothing found is `null`, `false` or an empty text, depending on the script."""
    if isinstance(official, bool) and isinstance(ours, bool):
        return ours == official
    if isinstance(official, int | float) and isinstance(ours, int | float) and not isinstance(official, bool):
        return math.isclose(ours, official, abs_tol=1e-9)
    return (ours or None) == (official or None)


def differences(name: str, folder: Path = COMMITTED) -> tuple[int, list[tuple[list[Any], Any, Any]]]:
    """Return the number of verdicts of a file, and those with which ours differ: input, ours, official."""
    found = list(verdicts(name, folder))
    pairs = [(given, OFFICIAL[name].ours(*given), official) for given, official in found]
    return len(found), [pair for pair in pairs if not same(pair[1], pair[2])]


def table(folder: Path = COMMITTED) -> str:
    """Return a line of Markdown per file."""
    lines = ["| tasks | official script | `--rule` | verdicts | pairs | differ |", "|" + " --- |" * 6]
    for name, official in OFFICIAL.items():
        count, different = differences(name, folder)
        cells = (official.tasks, official.script, official.rule, f"`{name}`", str(count), str(len(different)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(folder: Path = COMMITTED) -> None:
    """Write the table, and every difference below."""
    sys.stdout.write(f"{table(folder)}\n")
    for name in OFFICIAL:
        for given, ours, theirs in differences(name, folder)[1]:
            shown = json.dumps(given, ensure_ascii=False)
            sys.stdout.write(f"{name} {shown}: ours {ours!r}, official {theirs!r}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
