"""Summarise predictions: accuracy with its interval, difference from the unchanged model, tokens, seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slime_vlm.evaluation.ablation.settings import GROUPS, REFERENCE, SETTINGS, Setting
from slime_vlm.evaluation.predictions import Row
from slime_vlm.evaluation.statistics import Tally, accuracy, accuracy_interval, difference_interval

ABSENT_GROUP = "absent"


@dataclass(frozen=True)
class Summary:
    """The numbers of one setting. Accuracy is exact match on the questions whose answer is on the page.

    Attributes:
        setting: The setting.
        questions: Number of questions whose answer is on the page.
        images: Number of images.
        accuracy: Share of these questions that is answered exactly.
        interval: Its 95% interval.
        by_seed: Accuracy for each seed.
        difference: Accuracy minus that of the reference on the same questions, and its 95% interval. None for the
            reference itself.
        by_group: Accuracy and number of questions by kind of page.
        absent: Share of the questions about something absent that are answered so, and their number.
        anls: Mean similarity of the answers, which tolerates single wrong characters.
        image_tokens: Mean number of image tokens in the language model's input. None for the OCR baseline.
        kept_tokens: Mean number of local tokens among them.
        encode_seconds: Mean time per image.
        answer_seconds: Mean time per question, after encoding the image.
        megabytes: Largest growth of memory.
    """

    setting: Setting
    questions: int
    images: int
    accuracy: float
    interval: tuple[float, float]
    by_seed: dict[int, float]
    difference: tuple[float, float, float] | None
    by_group: dict[str, Tally]
    absent: Tally
    anls: float
    image_tokens: float | None
    kept_tokens: float | None
    encode_seconds: float
    answer_seconds: float
    megabytes: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `results.json`."""
        return {
            "groups": list(self.setting.groups),
            "questions": self.questions,
            "images": self.images,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "by_seed": self.by_seed,
            "difference": None if self.difference is None else list(self.difference),
            "by_group": {name: {"accuracy": s, "questions": n} for name, (s, n) in self.by_group.items()},
            "absent": {"accuracy": self.absent[0], "questions": self.absent[1]},
            "anls": self.anls,
            "image_tokens": self.image_tokens,
            "kept_tokens": self.kept_tokens,
            "encode_seconds": self.encode_seconds,
            "answer_seconds": self.answer_seconds,
            "megabytes": self.megabytes,
        }


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Return the summary of every setting that has predictions, in the order of the tables.

    A setting without any question whose answer is on the page is left out.
    """
    of_setting: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_setting[row["setting"]].append(row)
    return [
        _summary(setting, of_setting[setting.name], of_setting[REFERENCE])
        for setting in SETTINGS
        if any(row["group"] != ABSENT_GROUP for row in of_setting[setting.name])
    ]


def of_group(summaries: Iterable[Summary], group: str) -> list[Summary]:
    """Return the summaries of one table."""
    assert group in GROUPS
    return [summary for summary in summaries if group in summary.setting.groups]


def compare(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, float, float] | None:
    """Return the difference in accuracy on the questions that both sets of predictions have, with its 95% interval.

    Returns:
        The difference, its lower and its upper end. None if they share no question whose answer is on the page.
    """
    pages = shared_pages(rows, others)
    return difference_interval(pages) if pages else None


def shared_pages(rows: Sequence[Row], others: Sequence[Row]) -> list[tuple[float, float, int]]:
    """Return, for every page, the right answers of each of two sets of predictions and the number of shared questions.

    Questions about something absent do not count.
    """
    known = {_question(row): row["score"] for row in others}
    by_page: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["group"] != ABSENT_GROUP and _question(row) in known:
            by_page[_image(row)].append((row["score"], known[_question(row)]))
    return [(sum(a for a, _ in page), sum(b for _, b in page), len(page)) for page in by_page.values()]


def _summary(setting: Setting, rows: Sequence[Row], reference: Sequence[Row]) -> Summary:
    answered = [row for row in rows if row["group"] != ABSENT_GROUP]
    absent = [row for row in rows if row["group"] == ABSENT_GROUP]
    pages = _tallies(answered)
    seeds = sorted({row["seed"] for row in answered})
    groups = sorted({row["group"] for row in answered})
    read = [row["tokens"] for row in rows if row["tokens"]]
    grown = [row["megabytes"] for row in rows if row["megabytes"] is not None]
    return Summary(
        setting=setting,
        questions=len(answered),
        images=len(pages),
        accuracy=accuracy(pages),
        interval=accuracy_interval(pages),
        by_seed={seed: _share([row for row in answered if row["seed"] == seed])[0] for seed in seeds},
        difference=None if setting.name == REFERENCE else compare(rows, reference),
        by_group={name: _share([row for row in answered if row["group"] == name]) for name in groups},
        absent=_share(absent),
        anls=_mean(answered, lambda row: row["anls"]),
        image_tokens=sum(tokens["global"] + tokens["kept"] for tokens in read) / len(read) if read else None,
        kept_tokens=sum(tokens["kept"] for tokens in read) / len(read) if read else None,
        encode_seconds=_mean(rows, lambda row: row["seconds"]["encode"]),
        answer_seconds=_mean(rows, lambda row: row["seconds"]["answer"]),
        megabytes=max(grown, default=None),
    )


def _question(row: Row) -> tuple[str, str]:
    """Return the image and the number of a row's question."""
    return _image(row), row["id"].rpartition("/")[2]


def _image(row: Row) -> str:
    """Return the id of the image that a row asks about. Runs from before November 2026 call it `picture`."""
    return row["image"] if "image" in row else row["picture"]


def _tallies(rows: Sequence[Row]) -> list[Tally]:
    by_page: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_page[_image(row)].append(row["score"])
    return [(sum(scores), len(scores)) for scores in by_page.values()]


def _share(rows: Sequence[Row]) -> Tally:
    return (sum(row["score"] for row in rows) / len(rows), len(rows)) if rows else (0.0, 0)


def _mean(rows: Sequence[Row], value: Callable[[Row], float]) -> float:
    return sum(map(value, rows)) / len(rows) if rows else 0.0
