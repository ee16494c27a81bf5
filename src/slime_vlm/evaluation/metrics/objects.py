"""Objects that a description names: a noun of a list, in the singular or the plural, as words of the text."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLURALS = {
    "person": "people",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
}


def named_objects(text: str, objects: Iterable[str]) -> set[str]:
    """Which of some objects a text names; what it denies ("no dog") counts as named, and synonyms do not.

    Args:
        text: the description.
        objects: nouns in the singular, of one word or several.
    """
    words = f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
    return {one for one in objects if any(f" {form} " in words for form in _forms(one))}


def _forms(noun: str) -> set[str]:
    """A noun and what its plural may be; its last word is the one that changes."""
    plain = " ".join(re.findall(r"[a-z]+", noun.lower()))
    before, space, last = plain.rpartition(" ")
    plurals = {f"{last}s", f"{last}es"}
    for ending, plural in (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men")):
        if last.endswith(ending):
            plurals.add(last.removesuffix(ending) + plural)
    if last in _PLURALS:
        plurals.add(_PLURALS[last])
    return {plain, *(before + space + plural for plural in plurals)} if last else set()
