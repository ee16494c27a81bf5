"""Find the listed objects that a description names, in the singular or the plural."""

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
    """Return which of the objects a text names. Negations ("no dog") count as named, synonyms do not.

    Args:
        text: The description.
        objects: Nouns in the singular, of one word or several.
    """
    words = f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
    return {one for one in objects if any(f" {form} " in words for form in _forms(one))}


def _forms(noun: str) -> set[str]:
    """Return a noun and its possible plurals. Only the last word changes."""
    plain = " ".join(re.findall(r"[a-z]+", noun.lower()))
    before, space, last = plain.rpartition(" ")
    plurals = {f"{last}s", f"{last}es"}
    for ending, plural in (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men")):
        if last.endswith(ending):
            plurals.add(last.removesuffix(ending) + plural)
    if last in _PLURALS:
        plurals.add(_PLURALS[last])
    return {plain, *(before + space + plural for plural in plurals)} if last else set()
