"""MATH-Vision: cut the result out of an answer, and compare it with the right one as text, then as a number."""

from __future__ import annotations

import re
from collections.abc import Mapping

from slime_vlm.evaluation.metrics.latex_value import latex_value

_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOX = "oxed{"
# Replacements in order, of what surrounds a result. The published list is kept, with its oddities.
_CLEANED = (
    (" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", ""), ("\\text", ""),
    ("\\mbox", ""), ("bmatrix", "pmatrix"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""),
    ("{m}^3", ""), ("m^3", ""), ("{units}", ""), ("units", ""), ("{km}", ""), ("km", ""), ("\\!", ""), ("\\\\", "\\"),
    ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""),
    ("\\$", ""), ("$", ""), ("\\%", ""), ("{.", "{0."),
)  # fmt: skip
_LETTERS_IN_BRACKETS = (*(f"({letter})" for letter in "abcde"), *(f"{{{letter}}}" for letter in "abcde"))


def mathvision_match(prediction: str, answer: str, options: Mapping[str, str]) -> float:
    """Return 1.0 if the result of an answer equals the right letter, or the right option's text or value, else 0.0.

    Args:
        prediction: The answer.
        answer: The right letter if there are options, else the right value.
        options: Option texts by letter. Empty for open questions.
    """
    given = final_answer(prediction)
    return float(same_value(answer, given) or same_value(options.get(answer, ""), given))


def final_answer(prediction: str) -> str:
    r"""Return the result of an answer in lower case, by the authors' rule.

    A letter counts as `B` on the first line, and as ` B.` or ` (B).` at the end. A number counts after the last `is`.
    Otherwise it is the last box, or what follows a phrase such as `the answer is` up to the end of its sentence, or the
    whole answer. `B. text` is therefore no letter.
    """
    text = prediction.strip()
    for letter in "ABCDE":
        first = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.startswith(first) or text.endswith((f" {letter}.", f" ({letter}).")):
            text = letter
    number = text.split("is ")[-1].rstrip(".")
    if _is_number(number):
        text = number
    if _BOX not in text:
        for phrase in _PHRASES:
            for spelling in (phrase, phrase.replace("the", "The")):
                if spelling in text:
                    text = text.split(spelling)[-1].strip().split("\n")[0].split(". ")[0]
                else:
                    text = text.strip()
    elif text.count(_BOX) > 1:
        text = "\\b" + _BOX + text.split(_BOX)[-1]
    text = _cleaned(_boxed(text.lower().replace("{}", "")))
    for letter in _LETTERS_IN_BRACKETS:
        text = text.replace(letter, letter[1])
    return text.rstrip(".").lstrip(":").strip()


def same_value(wanted: str, given: str) -> bool:
    """Return whether two texts are equal except for case and outer blanks, or the same number, tuple or list.

    Numbers are compared to two decimals. Members of tuples are written as Python writes them, so `2` and `4/2` differ.
    """
    wanted, given = wanted.lower(), given.lower()
    if not wanted.replace(" ", "") or not given.replace(" ", ""):
        return False
    if wanted.strip() == given.strip():
        return True
    wanted, given = _members_evaluated(wanted), _members_evaluated(given)
    if wanted == given:
        return True
    values = latex_value(wanted), latex_value(given)
    return values[0] is not None and values[1] is not None and round(values[0], 2) == round(values[1], 2)


def _boxed(text: str) -> str:
    """Return the content of a box, or the whole text, up to a brace that nothing has opened."""
    found = re.search(r"oxed\{(.*)\}", text, re.DOTALL)
    text = found[1] if found else text
    closing, opening = text.find("}"), text.find("{")
    return text[:closing] if closing >= 0 and (opening < 0 or closing < opening) else text


def _cleaned(text: str) -> str:
    text = text.split("=")[-1].split("\\approx")[-1]
    for before, after in _CLEANED:
        text = text.replace(before, after)
    text = "0" + text if text.startswith(".") else text
    # Once more, because a removed mark may have parted it.
    text = text.split("\\approx")[-1] if text.count("\\approx") == 1 else text
    if "sqrt" in text:
        # A root's argument without braces is one character. Fractions are completed only beside a root.
        text = _fractions_braced(re.sub(r"\\sqrt(?!\{|\\sqrt)(.)", r"\\sqrt{\1}", text, flags=re.DOTALL))
    if text == "0.5":
        return "\\frac{1}{2}"
    quotient = re.fullmatch(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)", text)
    return f"\\frac{{{quotient[1]}}}{{{quotient[2]}}}" if quotient else text


def _fractions_braced(text: str) -> str:
    r"""Write `\frac12` as `\frac{1}{2}`. If an incomplete fraction occurs, nothing changes."""
    head, *fractions = text.split("\\frac")
    for fraction in fractions:
        if fraction.startswith("{"):
            head += "\\frac" + fraction
        elif len(fraction) < 2:
            return text
        else:
            below = fraction[1] if fraction[1] == "{" else f"{{{fraction[1]}}}"
            head += f"\\frac{{{fraction[0]}}}{below}{fraction[2:]}"
    return head


def _members_evaluated(text: str) -> str:
    """Return a tuple or list with the values of its members to two decimals, or the text if one has no value."""
    members = text[1:-1].split(",")
    if len(members) < 2 or text[0] + text[-1] not in {"()", "[]"}:
        return text
    written = []
    for member in members:
        value = latex_value(member)
        if "infty" in member or member in {"a", "-a"}:
            written.append(member)
        elif value is None:
            return text
        else:
            written.append(str(round(value, 2)))
    return text[0] + ",".join(written) + text[-1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
