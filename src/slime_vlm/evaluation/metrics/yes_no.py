"""Yes/no questions (POPE, MME, AMBER): parse the answers, and compute scores from many of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slime_vlm.evaluation.metrics.vqa import normalise_answer

MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "ocr",
)
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
MME_HALLUCINATION = ("existence", "count", "position", "color")
"""The categories that SliME reports as MME's hallucination subset."""

# Start value of the counters in AMBER's script, which avoids a division by zero.
_AMBER_START = 0.001


def read_pope(prediction: str) -> str:
    """Return `no` if a word before the first period is No, not or no, else `yes`."""
    words = prediction.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def read_mme(prediction: str) -> str:
    """Return `yes`, `no` or `other` (always wrong), from the whole text or its first four characters."""
    text = prediction.lower().strip().replace(".", "")
    whole = {"yes": "yes", "y": "yes", "no": "no", "n": "no"}.get(text)
    if whole:
        return whole
    start = text[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def read_yes_no(prediction: str) -> str:
    """Return `yes` or `no` if exactly one of these words occurs, else `unknown`, as VLMEvalKit reads such answers."""
    words = set(normalise_answer(prediction, evalai=False).split())
    found = words & {"yes", "no"}
    return found.pop() if len(found) == 1 else "unknown"


def read_amber(prediction: str) -> str:
    """Return `yes`, `no` or the text itself (always wrong).

    AMBER accepts only Yes and No. SliME's script capitalises an answer for it, so `YES` counts. `Yes.` does not.
    """
    text = prediction.strip().capitalize()
    return {"Yes": "yes", "No": "no"}.get(text, text)


@dataclass(frozen=True)
class Confusion:
    """Counts of yes/no answers with `yes` as the positive class.

    Attributes:
        tp: Answered yes, and right.
        fp: Answered yes, and wrong.
        tn: Answered no, and right.
        fn: Answered no, and wrong.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def count(cls, pairs: Iterable[tuple[str, str]]) -> Confusion:
        """Count pairs of (prediction, truth)."""
        found = list(pairs)
        return cls(
            tp=sum(given == truth == "yes" for given, truth in found),
            fp=sum(given == "yes" != truth for given, truth in found),
            tn=sum(given != "yes" != truth for given, truth in found),
            fn=sum(given != "yes" == truth for given, truth in found),
        )

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def precision(self) -> float:
        """Share of right answers among the yeses."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the questions with the truth yes that were answered yes."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """Share of yeses among the predictions."""
        return _ratio(self.tp + self.fp, self.tp + self.fp + self.tn + self.fn)


def mme_category(pairs: Mapping[str, Sequence[float]]) -> float:
    """Return the score of one category: percent of right answers plus percent of images with both right, at most 200.

    Args:
        pairs: For each image, 1.0 or 0.0 for each of its questions.
    """
    answers = [score for scores in pairs.values() for score in scores]
    both = [all(scores) for scores in pairs.values()]
    return 100 * _ratio(sum(answers), len(answers)) + 100 * _ratio(sum(both), len(both))


def amber_scores(pairs: Iterable[tuple[str, str]], *, existence: bool = False, counters: int = 1) -> dict[str, float]:
    """Return accuracy, precision, recall and F1 in percent with `no` as the positive class, rounded as AMBER does.

    Args:
        pairs: Pairs of prediction and truth. Both are `yes` or `no`, a prediction may be any other text.
        existence: Whether all questions are about existence. F1 then has a larger constant in its denominator.
        counters: Number of counters that are added up, each with a small start value: three for attributes.
    """
    found = list(pairs)
    right_no = sum(given == truth == "no" for given, truth in found)
    start = counters * _AMBER_START
    answered_no = start + sum(given == "no" for given, _ in found)
    true_no = start + sum(truth == "no" for _, truth in found)
    right = sum(given == truth for given, truth in found)
    accuracy = round(100 * right / (start + len(found)), 1)
    precision = round(100 * right_no / answered_no, 1)
    recall = round(100 * right_no / true_no, 1)
    constant = 0.001 if existence else 0.0001
    p, r = precision / 100, recall / 100
    f1 = round(100 * 2 * p * r / (p + r + constant), 1)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
