"""MATH-Vision: compare the last boxed or stated result as text, then as a number."""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping

_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the correct option is", "final answer:")
_UNITS = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}|\^\{?\\circ\}?|\\%|%|\\\$|\$|\\[,!;]|\\left|\\right")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac(\d)(\d)")
_ROOT = re.compile(r"\\sqrt\{([^{}]*)\}")
_SHORT_ROOT = re.compile(r"\\sqrt(\d+)")
_OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_LONGEST = 200


def final_answer(prediction: str) -> str:
    """Return the result of an answer: its last box, or what follows the last phrase such as `the answer is`."""
    box = prediction.rfind("\\boxed{")
    if box >= 0:
        return _braced(prediction[box + len("\\boxed{") :])
    lower = prediction.lower()
    # Lower case may be longer than the text (İ). Positions would not match, so phrases are not searched.
    if len(lower) == len(prediction):
        ends = [lower.rfind(phrase) + len(phrase) for phrase in _PHRASES if phrase in lower]
        if ends:
            prediction = prediction[max(ends) :]
    return prediction.strip().strip(":").strip().rstrip(".")


def option_letter(prediction: str, letters: str) -> str | None:
    """Return the option that an answer states alone, first, last or in parentheses, or None."""
    text = final_answer(prediction).strip()
    for pattern in (r"\(?([A-Z])\)?[.:]?", r"\(([A-Z])\).*", r"([A-Z])[.:)] .*", r".*\(([A-Z])\)"):
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found and found[1] in letters:
            return found[1]
    return None


def mathvision_match(prediction: str, answer: str, options: Mapping[str, str]) -> float:
    """Return 1.0 if letter, text or value equal the answer's, else 0.0.

    Values are compared to two decimals, tuples by their members.

    Args:
        prediction: The answer.
        answer: The right letter if there are options, else the right value.
        options: Option texts by letter. Empty for open questions.
    """
    if options:
        letter = option_letter(prediction, "".join(options))
        if letter is not None:
            return float(letter == answer)
    given = final_answer(prediction)
    wanted = options.get(answer, answer)
    return float(same_value(given, wanted))


def same_value(given: str, wanted: str) -> bool:
    """Return whether two texts are equal except for case and outer blanks, or the same number, tuple or list."""
    left, right = given.strip().lower(), wanted.strip().lower()
    if not left or not right:
        return False
    if left == right:
        return True
    lists = [_members(text) for text in (left, right)]
    if lists[0] and lists[1]:
        return len(lists[0]) == len(lists[1]) and all(map(same_value, lists[0], lists[1]))
    values = [value_of(text) for text in (left, right)]
    return values[0] is not None and values[1] is not None and round(values[0], 2) == round(values[1], 2)


def value_of(text: str) -> float | None:
    """Return the value of a LaTeX or plain expression, or None. Nothing is executed.

    Numbers, + - * / ^, fractions, roots and pi are understood.
    """
    text = text.split("=")[-1].split("\\approx")[-1]
    text = _UNITS.sub("", text.lower()).replace("\\cdot", "*").replace("\\times", "*").replace("×", "*")
    text = _SHORT_ROOT.sub(r"((\1)**0.5)", _SHORT_FRACTION.sub(r"(\1/\2)", text))
    for _ in range(5):
        text = _FRACTION.sub(r"((\1)/(\2))", _ROOT.sub(r"((\1)**0.5)", text))
    text = text.replace("\\pi", f"({math.pi})").replace("π", f"({math.pi})").replace("{", "(").replace("}", ")")
    # A digit or a closing parenthesis before an opening one means a product.
    text = re.sub(r"(?<=[\d)])\s*\(", "*(", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.replace("^", "**")))
    if len(text) > _LONGEST or not text.isascii():
        return None
    try:
        with warnings.catch_warnings():
            # Silence the warnings that Python gives for odd source code.
            warnings.simplefilter("ignore")
            value = _evaluate(ast.parse(text.strip(), mode="eval").body)
    # Anything that is not arithmetic, or has no value, is not a number.
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _evaluate(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _evaluate(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    raise ValueError("not arithmetic")


def _members(text: str) -> list[str]:
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and "," in text:
        return text[1:-1].split(",")
    return []


def _braced(text: str) -> str:
    depth = 1
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            return text[:position].strip()
    return text.strip()
