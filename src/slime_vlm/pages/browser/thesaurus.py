"""What documents state: the keys as printed, and how people ask for the same thing in other words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slime_vlm.pages.splits import is_heldout_key
from slime_vlm.pages.word_lists import listed

_FILE = Path(__file__).with_name("thesaurus.txt")


@dataclass(frozen=True)
class Concept:
    """A thing that documents state.

    Attributes:
        name: Name within the code.
        kind: Kind of its values, one of `values.KINDS`.
        keys: Keys as documents print them.
        nouns: Nouns to ask with, for patterns with `{k}`.
        questions: Whole questions.
        group: Things that the nouns and questions do not tell apart share a group.
    """

    name: str
    kind: str
    keys: tuple[str, ...]
    nouns: tuple[str, ...]
    questions: tuple[str, ...]
    group: str

    def keys_of(self, split: str) -> list[str]:
        """Return the printed keys of a split."""
        return [key for key in self.keys if is_heldout_key(key) == (split == "heldout")]


def _items(field: str) -> tuple[str, ...]:
    return tuple(item for item in listed(field, ";") if item)


@cache
def concepts() -> dict[str, Concept]:
    """Return every concept by name."""
    found: dict[str, Concept] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, kind, keys, nouns, questions, group = (field.strip() for field in line.split("|"))
        found[name] = Concept(name, kind, _items(keys), _items(nouns), _items(questions), group or name)
    return found
