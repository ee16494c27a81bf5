"""What documents state: the keys as printed, and how people ask for the same thing in other words.

`thesaurus.txt` serves both splits. `more_thesaurus.txt` was added later and serves training alone, so that held-out
pages and their questions stay as they were and scores can be compared. What the later file holds is held out by its own
hash, too: training sees no key and no noun of it that is a held-out key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from slime_vlm.pages.splits import is_heldout_key
from slime_vlm.pages.word_lists import listed

_FILE = Path(__file__).with_name("thesaurus.txt")
_MORE = Path(__file__).with_name("more_thesaurus.txt")


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


def _read(path: Path) -> list[Concept]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, kind, keys, nouns, questions, group = (field.strip() for field in line.split("|"))
        found.append(Concept(name, kind, _items(keys), _items(nouns), _items(questions), group or name))
    return found


def _joined(first: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Join two lists; what differs in capitals alone comes once."""
    known = {item.lower() for item in first}
    return (*first, *(item for item in more if item.lower() not in known))


def _trainable(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item for item in items if not is_heldout_key(item))


@cache
def concepts(split: str) -> dict[str, Concept]:
    """Return every concept of a split by name.

    Args:
        split: "train" for the concepts of both files; "heldout" for those of the first file, as they stand there.
    """
    found = {concept.name: concept for concept in _read(_FILE)}
    for more in _read(_MORE) if split == "train" else ():
        keys, nouns = _trainable(more.keys), _trainable(more.nouns)
        known = found.get(more.name)
        if known is None:
            found[more.name] = replace(more, keys=keys, nouns=nouns)
        else:
            found[more.name] = replace(
                known,
                keys=_joined(known.keys, keys),
                nouns=_joined(known.nouns, nouns),
                questions=_joined(known.questions, more.questions),
            )
    return found


@cache
def later_concepts() -> tuple[str, ...]:
    """Return the names of the concepts that `thesaurus.txt` lacks, for training pages."""
    known = concepts("heldout")
    return tuple(name for name in concepts("train") if name not in known)
