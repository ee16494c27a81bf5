"""Measure exact match on held-out rendered pages, with tokens and seconds of every answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from slime_vlm.evaluation.generation import SHORT_ANSWER, longest_answer
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
"""Group that results are reported by, for every kind of page."""

# Far from every seed that a recipe trains on (`training.stage_data.SEEDS_PER_STAGE`).
FIRST_SEED = 7_000_000_000_000


@dataclass(frozen=True)
class PagePrediction:
    """One line of the predictions that `slime eval pages --out` writes.

    Attributes:
        seed: Seed of the page.
        kind: Kind of the page.
        question: The question.
        answer: The right answer.
        prediction: The model's answer.
        correct: 1.0 or 0.0.
        num_global: Number of global tokens in the language model's input.
        num_local: Number of local tokens before selection.
        num_kept: Number of local tokens in the language model's input.
        seconds: Time of this question. The time to encode the page is divided among its questions.
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
        """Group that results are reported by. Questions about something absent form a group of their own."""
        return "absent" if self.answer == ABSENT else GROUPS[self.kind]

    def as_dict(self) -> dict[str, object]:
        """Return plain data, for a file of predictions."""
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
) -> Iterator[PagePrediction]:
    """Ask every question of a number of pages, each in a conversation of its own.

    Args:
        model: The model.
        processor: The model's processor.
        settings: Settings of the pages. `split` should be a held-out one.
        count: Number of pages.
        blind: Show an empty page of the same size instead, to measure what can be guessed.
        keep_share: Keep this share of a page's local tokens, the best ones, instead of the model's own rule.
        first_seed: Seed of the first page.

    Yields:
        One prediction per question.

    Raises:
        ConfigError: `keep_share` is given, but the model has no selector.
    """
    rule = model.config.max_local_tokens
    longest = longest_answer(model.config, SHORT_ANSWER)
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
                # A fresh copy has no cached prefix: every question pays for its whole prompt.
                answer = replace(encoded).ask(question.text, max_new_tokens=longest)
                yield PagePrediction(
                    seed=seed,
                    kind=page.kind,
                    question=question.text,
                    answer=question.answer,
                    prediction=answer.text,
                    correct=exact_match(answer.text, question.answer),
                    num_global=answer.num_global,
                    num_local=answer.num_local,
                    num_kept=answer.num_kept,
                    seconds=shared + sum(answer.seconds.values()),
                )
    finally:
        model.config.max_local_tokens = rule


def summarise(predictions: Iterable[PagePrediction]) -> dict[str, dict[str, float]]:
    """Return means by group, and over all questions whose answer is on the page ("all")."""
    groups: dict[str, list[PagePrediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.group].append(prediction)
        if prediction.group != "absent":
            groups["all"].append(prediction)
    return {
        group: {
            "questions": float(len(members)),
            "exact_match": _mean([one.correct for one in members]),
            "global_tokens": _mean([one.num_global for one in members]),
            "local_tokens": _mean([one.num_local for one in members]),
            "kept_tokens": _mean([one.num_kept for one in members]),
            "seconds": _mean([one.seconds for one in members]),
        }
        for group, members in groups.items()
    }


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values)
