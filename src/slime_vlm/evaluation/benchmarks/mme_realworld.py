"""MME-RealWorld, in English and in Chinese: five options about large images of five domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from slime_vlm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Question,
    Record,
    Scored,
    Source,
    Target,
    accuracy,
    by_rules,
    mean_of_groups,
    percent,
)
from slime_vlm.evaluation.metrics.realworld import realworld_letter, realworld_letter_lmms_eval

# The authors' script has a blank at the end of this line, and none at the end of the prompt.
_CHOICES = "The choices are listed below: "
_INSTRUCTION = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option.\nThe best answer is:"
)
# The Chinese prompt is lmms-eval's, with its blank at the end. The authors published none.
_CHOICES_CN = "选项如下所示:"
_INSTRUCTION_CN = "根据图像选择上述多项选择题的最佳答案。只需回答正确选项的字母（A, B, C, D 或 E）。\n最佳答案为： "


def _ask(record: Record, index: int, choices: str = _CHOICES, instruction: str = _INSTRUCTION) -> Question:
    options = [str(option) for option in record["multi-choice options"]]
    lines = "\n".join(options)
    prompt = f"{record['question']} {choices}\n{lines}\n{instruction}"
    task, _, domain = str(record["category"]).partition("/")
    target: Target = {
        "answer": str(record["answer"]).strip(),
        "options": options,
        "task": task,
        "domain": domain or task,
        "sub-task": f"{record['category']}/{_sub_task(str(record['l2-category']))}",
    }
    return Question(str(record["index"]), prompt, (record["bytes"],), target)


def _sub_task(name: str) -> str:
    """Return the sub-task as the official scripts count it: in lower case, with all attributes of a kind as one."""
    name = name.lower()
    return f"{name.split('/')[0]}/attribute" if "attribute" in name else name


def _scorer(read: Callable[[str, Sequence[str]], str]) -> Callable[[str, Target], float]:
    return lambda prediction, target: float(read(prediction, target["options"]) == target["answer"])


def _summarise(rows: Sequence[Scored]) -> dict[str, float]:
    overall = {"accuracy": percent(row.score for row in rows), "mean of sub-tasks": mean_of_groups(rows, "sub-task")}
    return overall | accuracy("task", "domain", "sub-task")(rows)


_BENCHMARK = Benchmark(
    name="mme_realworld",
    title="MME-RealWorld",
    source=Source("yifanzhang114/MME-RealWorld-Lmms-eval", "train"),
    licence="academic research only, no redistribution",
    metric="accuracy of the letter over all questions",
    fields=("index", "question", "multi-choice options", "answer", "category", "l2-category", "bytes"),
    ask=_ask,
    score=_scorer(realworld_letter),
    summarise=_summarise,
    main="accuracy",
    note="The authors' rule has oddities: the first capital A to E counts, and an empty answer is option A.",
)

_CHINESE = replace(
    _BENCHMARK,
    name="mme_realworld_cn",
    title="MME-RealWorld-CN",
    source=Source("yifanzhang114/MME-RealWorld-CN-Lmms-eval", "train"),
    ask=partial(_ask, choices=_CHOICES_CN, instruction=_INSTRUCTION_CN),
    note="It has its own images and questions, not translated ones. Letters are extracted as in the English one.",
)

# lmms-eval does not pass the texts of the options.
BENCHMARK, CHINESE = (
    by_rules(
        "authors",
        {"authors": one, "lmms-eval": replace(one, score=_scorer(lambda text, _: realworld_letter_lmms_eval(text)))},
    )
    for one in (_BENCHMARK, _CHINESE)
)
