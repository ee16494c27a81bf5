"""Exact match on held-out rendered pages, with what each answer cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from slime_vlm.evaluation.metrics import exact_match
from slime_vlm.inference.answering import encode
from slime_vlm.pages import ABSENT, PageSettings, make_page, render

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

GROUPS = {
    "form": "key-value",
    "invoice": "key-value",
    "receipt": "key-value",
    "table": "table",
    "scene": "scene",
    "map": "scene",
    "chart": "chart",
    "geometry": "geometry",
}
"""Kinds of page as results are reported."""

# Far from every seed that a recipe trains on (`training.stage_data.SEEDS_PER_STAGE`).
FIRST_SEED = 7_000_000_000_000


@dataclass(frozen=True)
class PageAnswer:
    """One question of one page, answered.

    Attributes:
        seed: seed of the page.
        kind: kind of the page.
        question: the question.
        answer: the exact answer.
        prediction: the model's answer.
        correct: 1.0 or 0.0.
        num_global: global tokens that the language model read.
        num_local: local tokens before selection.
        num_kept: local tokens that the language model read.
        seconds: time of this question; the encoding of the page is spread over its questions.
    """

    seed: int
    kind: str
    question: str
    answer: str
    prediction: str
    correct: float
    num_global: int
    num_local: int
    num_kept: int
    seconds: float

    @property
    def group(self) -> str:
        """Group that results are reported by; questions about what is not there are one of their own."""
        return "absent" if self.answer == ABSENT else GROUPS[self.kind]

    def as_dict(self) -> dict[str, object]:
        """Plain data, for a file of predictions."""
        return asdict(self)


def answer_pages(
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    settings: PageSettings,
    count: int,
    *,
    blind: bool = False,
    keep_share: float | None = None,
    first_seed: int = FIRST_SEED,
) -> Iterator[PageAnswer]:
    """Ask every question of a number of pages, each with a conversation of its own.

    Args:
        model: the model.
        processor: its processor.
        settings: which pages; `split` should be a held-out one.
        count: number of pages.
        blind: show an empty page of the same size instead: what can be guessed without seeing.
        keep_share: keep this share of a page's local tokens, the best ones, in place of the model's own rule.
        first_seed: seed of the first page.

    Raises:
        ConfigError: `keep_share` is given, and the model has no selector.
    """
    rule = model.config.max_local_tokens
    try:
        for seed in range(first_seed, first_seed + count):
            page = make_page(seed, settings)
            image = Image.new("RGB", (page.width, page.height), page.paper) if blind else Image.fromarray(render(page))
            encoded = encode(model, processor, image)
            if keep_share is not None:
                model.config.max_local_tokens = max(1, round(keep_share * encoded.tokens.num_local_tokens))
                model.config.check()
            shared = sum(encoded.seconds.values()) / len(page.questions)
            for question in page.questions:
                encoded.seconds = {}
                # A copy has read nothing yet: every question costs what it would alone.
                given = replace(encoded).ask(question.text, max_new_tokens=24)
                yield PageAnswer(
                    seed=seed,
                    kind=page.kind,
                    question=question.text,
                    answer=question.answer,
                    prediction=given.text,
                    correct=exact_match(given.text, question.answer),
                    num_global=given.num_global,
                    num_local=given.num_local,
                    num_kept=given.num_kept,
                    seconds=shared + sum(given.seconds.values()),
                )
    finally:
        model.config.max_local_tokens = rule


def summarise(answers: list[PageAnswer]) -> dict[str, dict[str, float]]:
    """Means by group, and over all questions that have an answer on the page ("all")."""
    groups: dict[str, list[PageAnswer]] = defaultdict(list)
    for answer in answers:
        groups[answer.group].append(answer)
        if answer.group != "absent":
            groups["all"].append(answer)
    return {
        group: {
            "questions": float(len(members)),
            "exact_match": _mean([a.correct for a in members]),
            "global_tokens": _mean([a.num_global for a in members]),
            "local_tokens": _mean([a.num_local for a in members]),
            "kept_tokens": _mean([a.num_kept for a in members]),
            "seconds": _mean([a.seconds for a in members]),
        }
        for group, members in groups.items()
    }


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values)
