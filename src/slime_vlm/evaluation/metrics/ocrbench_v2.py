"""OCRBench v2: the metrics of short answers, counts, key-value pairs and boxes."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

_FENCED = re.compile(r"```(?:python|json)?\n(.*?)\n```", re.DOTALL | re.IGNORECASE)
_PAIR = re.compile(r"""["']?([\w\s]+)["']?\s*[:=]\s*["']?([^\n,"'{}]+)["']?""")
_BOX = re.compile(r"[(\[]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*[)\]]")
_LARGEST_COORDINATE = 1000
# What may stand between the letters or digits of a handwritten answer.
_BETWEEN = ("", ".", ". ", ",", ", ", "、", ";", "; ", " ", "和")
_NEAR = 0.5


def short_or_near(prediction: str, answers: Sequence[str], *, case: bool = False, chinese: bool = False) -> float:
    """Return 1.0 if the prediction contains a short answer, else the similarity to the nearest long one from 0.5 on.

    Args:
        prediction: The answer.
        answers: Accepted answers. One of less than five words is short, or of less than four parts between commas in
            Chinese.
        case: Whether case counts.
        chinese: Whether blanks do not count.
    """

    def plain(text: str) -> str:
        text = (text if case else text.lower()).strip().replace("\n", " ")
        return text.replace(" ", "") if chinese else text

    given, best = plain(prediction), 0.0
    for answer in map(plain, answers):
        short = len(answer.split(",")) < 4 if chinese else len(answer.split()) < 5
        if short:
            best = max(best, float(answer in given))
        else:
            near = Levenshtein.normalized_similarity(given, answer)
            best = max(best, near if near >= _NEAR else 0.0)
    return best


def letters_match(prediction: str, answer: str) -> float:
    """Return 1.0 if the letters of a prediction, one after the other, are the answer."""
    return float("".join(filter(str.isalpha, prediction)) == answer)


def count_match(prediction: str, answers: Sequence[str], *, near: bool) -> float:
    """Return 1.0 if an answer is part of the prediction, or how near the first number comes to an answer, from 0.5 on.

    Args:
        prediction: The answer.
        answers: Accepted answers.
        near: Whether near counts score by their relative error.
    """
    wanted = [answer.lower().strip().replace("\n", " ") for answer in answers]
    if not near:
        return max((float(answer in prediction) for answer in wanted), default=0.0)
    found = re.search(r"\d+", prediction.lower())
    if not found:
        return 0.0
    shares = [
        1 - abs(int(found[0]) - int(answer)) / int(answer) for answer in wanted if answer.isdecimal() and int(answer)
    ]
    return max((share for share in shares if share > _NEAR and int(found[0]) > 0), default=0.0)


def formula_match(prediction: str, answers: Sequence[str], *, chinese: bool = False) -> float:
    r"""Return 1.0 if a formula is part of the prediction, without blanks and, in Chinese, without `\text{}`."""

    def plain(text: str) -> str:
        text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text) if chinese else text
        return text.strip().replace("\n", " ").replace(" ", "")

    return float(any(plain(answer) in plain(prediction) for answer in answers))


def handwriting_match(prediction: str, answer: str) -> float:
    """Return 1.0 if the characters of an answer occur, with the same separator between all of them."""
    return float(any(between.join(answer) in prediction for between in _BETWEEN))


def pairs_match(prediction: str, answer: str) -> float:
    """Return the share of keys, of the prediction or the answer, that have an accepted value in the prediction."""
    given = stated_pairs(prediction)
    wanted = {key: value if isinstance(value, list) else [value] for key, value in _answer_pairs(answer).items()}
    keys = given.keys() | wanted.keys()
    right = [key for key in keys & wanted.keys() if key in given and _plain(given[key]) in map(_plain, wanted[key])]
    return len(right) / len(keys) if keys else 0.0


def position_match(prediction: str, answers: Sequence[str], box: Sequence[Any]) -> float:
    """Return the mean of the score of the stated `answer` and the overlap of the stated `bbox` with the right one."""
    pairs = stated_pairs(prediction)
    content = short_or_near(pairs["answer"], answers) if "answer" in pairs else 0.0
    try:
        overlap = box_overlap(_literal(pairs.get("bbox", "")), box)
    except (ValueError, SyntaxError, TypeError, IndexError, RecursionError, MemoryError):
        overlap = 0.0
    return 0.5 * content + 0.5 * overlap


def grounding_match(prediction: str, box: Sequence[Any]) -> float:
    """Return the overlap of the last box that a prediction states with the right one. Coordinates go up to 1000."""
    boxes = [[int(number) for number in found] for found in _BOX.findall(prediction)]
    fitting = [one for one in boxes if max(one) <= _LARGEST_COORDINATE]
    return box_overlap(fitting[-1], box) if fitting else 0.0


def box_overlap(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Return intersection over union of two boxes (left, top, right, bottom), cut to whole numbers."""
    try:
        one, other = [int(value) for value in first], [int(value) for value in second]
    except (ValueError, TypeError):
        return 0.0
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def stated_pairs(prediction: str) -> dict[str, str]:
    """Return the keys and values that a prediction states: as JSON, as a Python literal, else as `key: value`."""
    fenced = _FENCED.search(prediction)
    content = fenced[1] if fenced else prediction.strip()
    found: Any = None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        try:
            found = _literal(content)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            found = {key.strip(): value.strip() for key, value in _PAIR.findall(content)}
        else:
            # A literal that is no mapping, such as a list, states nothing.
            found = found if isinstance(found, dict) else {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        return {}
    return {key.strip(): str(value).strip() for key, value in found.items()}


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        # Silence the warnings that Python gives for odd source code.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _answer_pairs(answer: str) -> Mapping[str, Any]:
    text = answer.strip('"')
    try:
        found = json.loads(text)
    except ValueError:
        found = _literal(text)
    return found if isinstance(found, dict) else _literal(str(found))


def _plain(value: Any) -> str:
    return str(value).lower().strip().replace("\n", " ").replace(" ", "")
