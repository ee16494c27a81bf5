"""Rules for the value of a recipe key, kept in the metadata of its dataclass field."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, get_origin


@dataclass(frozen=True)
class Rule:
    """What is expected of a value, as text and as a test."""

    expected: str
    fits: Callable[[Any], bool]


def value_rule(expected: str, fits: Callable[[Any], bool]) -> dict[str, Rule]:
    """Return field metadata: a value other than None has to pass a test."""
    return {"rule": Rule(expected, fits)}


def at_least(least: float) -> dict[str, Rule]:
    """Return field metadata: a finite number of at least `least`."""
    return value_rule(f"at least {least:g}", lambda value: least <= value < math.inf)


def one_of(*allowed: str) -> dict[str, Rule]:
    """Return field metadata: one of the allowed words."""
    words = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0]
    return value_rule(words, lambda value: value in allowed)


def some_of(*allowed: str) -> dict[str, Rule]:
    """Return field metadata: a list of allowed words, which may be empty."""
    return value_rule(f"a list of {', '.join(allowed)}", lambda value: all(item in allowed for item in value))


def fields_of(kind: type) -> dict[str, type]:
    """Return field metadata: a mapping with keys and values of another dataclass, which is not built yet."""
    return {"kind": kind}


SHARE = value_rule("a share between 0 and 1", lambda value: 0 <= value <= 1)
SHARES = value_rule(
    "two shares between 0 and 1, smallest first", lambda value: len(value) == 2 and 0 <= value[0] <= value[1] <= 1
)
COUNTS = value_rule("one or more numbers of at least 1", lambda value: bool(value) and min(value) >= 1)
RATES = value_rule("rates of at least 0", lambda value: all(0 <= rate < math.inf for rate in value.values()))
NOT_EMPTY = value_rule("at least one", bool)
FOLDER_NAME = value_rule("a name that a folder can have", lambda value: bool(value.strip(". ")) and "/" not in value)


def hints_of(kind: type) -> dict[str, Any]:
    """Return the type of every field that a dataclass defines itself, without inherited ones."""
    hints = inspect.get_annotations(kind, eval_str=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
