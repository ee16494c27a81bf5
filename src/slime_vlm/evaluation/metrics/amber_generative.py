"""AMBER's generative scores (CHAIR, Cover, Hal, Cog): which objects the nouns of a description name.

NLTK finds the nouns, and word vectors of spaCy find words of nearly the same meaning.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

_VECTORS = "en_core_web_lg"
_ALIKE = 0.8
# Every sum of the official script starts at this, so that none is 0.
_START = 0.001
# Data of NLTK: resource to look for, name to download.
_NLTK_DATA = (
    ("tokenizers/punkt_tab", "punkt_tab"),
    ("taggers/averaged_perceptron_tagger_eng", "averaged_perceptron_tagger_eng"),
    ("corpora/wordnet", "wordnet"),
)


@dataclass(frozen=True)
class Words:
    """The word lists that AMBER comes with.

    Attributes:
        associated: Words that stand for an object, by the object (`relation.json`).
        safe: Words that are never a hallucination (`safe_words.txt`).
    """

    associated: Mapping[str, Sequence[str]]
    safe: AbstractSet[str]

    @functools.cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word that counts as an object."""
        return frozenset(self.associated).union(*self.associated.values())


@dataclass(frozen=True)
class Named:
    """What a description names.

    Attributes:
        nouns: Number of its nouns that are objects.
        wrong: Those of them that stand for no object of the image.
        present: Whether it names each object of the image.
        expected: Whether it names each object that is not in the image, but that annotators expected to be named.
    """

    nouns: int
    wrong: int
    present: tuple[bool, ...]
    expected: tuple[bool, ...]


def named_by(
    nouns: Sequence[str],
    truth: Sequence[str],
    hallucinations: Sequence[str],
    words: Words,
    alike: Callable[[str, str], bool],
) -> Named:
    """Find which objects the nouns of a description name.

    A noun of the safe list names nothing, and is not wrong. One that is an object of the image, or associated with one,
    names the first such object. Any other names the first expected hallucination that it equals and the first that it
    is like, and is wrong unless it is like an object of the image.

    Args:
        nouns: Its nouns, in the singular and in their own case.
        truth: Objects of the image. One that is listed twice can be named only once.
        hallucinations: Expected hallucinations.
        words: AMBER's word lists.
        alike: Whether two words mean nearly the same.
    """
    nouns = [noun for noun in nouns if noun in words.vocabulary]
    right, wrong = _forms(truth, words), _forms(hallucinations, words)
    present, expected = [False] * len(truth), [False] * len(hallucinations)
    mistakes = 0
    for noun in nouns:
        if noun in words.safe or _mark(right, present, noun.__eq__):
            continue
        _mark(wrong, expected, noun.__eq__)
        _mark(wrong, expected, functools.partial(alike, noun))
        mistakes += not _mark(right, present, functools.partial(alike, noun))
    return Named(len(nouns), mistakes, tuple(present), tuple(expected))


def generative_scores(descriptions: Sequence[Named]) -> dict[str, float]:
    """Return CHAIR, Cover, Hal and Cog in percent with one decimal, as the official script prints them."""
    clean = sum(not one.wrong for one in descriptions)
    return {
        "CHAIR": _percent(sum(one.wrong for one in descriptions), sum(one.nouns for one in descriptions)),
        "Cover": _percent(sum(sum(one.present) for one in descriptions), sum(len(one.present) for one in descriptions)),
        "Hal": round(100 - clean / (len(descriptions) + _START) * 100, 1),
        "Cog": _percent(sum(sum(one.expected) for one in descriptions), sum(len(one.expected) for one in descriptions)),
    }


def nouns_of(text: str) -> list[str]:
    """Return the nouns of a text in the singular, by NLTK's tagger and WordNet's lemmas."""
    import nltk
    from nltk.stem import WordNetLemmatizer

    lemmatise = WordNetLemmatizer().lemmatize
    return [lemmatise(word) for word, tag in nltk.pos_tag(nltk.word_tokenize(text)) if tag.startswith("NN")]


@functools.cache
def alike(one: str, other: str) -> bool:
    """Return whether spaCy's vectors of two words are more than 0.8 similar."""
    language = _language()
    with warnings.catch_warnings():
        # spaCy warns of words without a vector, which are like none.
        warnings.simplefilter("ignore")
        return bool(language(one).similarity(language(other)) > _ALIKE)


@functools.cache
def lacking_for_descriptions() -> str:
    """Return in one line what CHAIR, Cover, Hal and Cog lack on this machine, or nothing."""
    try:
        import nltk  # noqa: F401
    except ModuleNotFoundError:
        return 'CHAIR, Cover, Hal and Cog need nltk, which is not installed: pip install "slime-vlm[scores]"'
    absent = [name for resource, name in _NLTK_DATA if not _is_there(resource)]
    if absent:
        return (
            f"CHAIR, Cover, Hal and Cog need data of NLTK that are not there: python -m nltk.downloader "
            f"{' '.join(absent)}"
        )
    try:
        _language()
    except (ImportError, OSError):
        return (
            f"CHAIR, Cover, Hal and Cog need spaCy's {_VECTORS}, which is not installed: pip install spacy, then "
            f"python -m spacy download {_VECTORS}"
        )
    return ""


def _is_there(resource: str) -> bool:
    from nltk.data import find

    # A download is a folder or a packed one.
    for name in (resource, f"{resource}.zip"):
        try:
            find(name)
        except LookupError:
            continue
        return True
    return False


@functools.cache
def _language() -> Callable[[str], Any]:
    import spacy

    return spacy.load(_VECTORS)


def _forms(objects: Sequence[str], words: Words) -> list[tuple[str, int]]:
    """Return the words that stand for objects with the place of the object: associated words first, as officially."""
    associated = [(word, place) for place, one in enumerate(objects) for word in words.associated[one]]
    return [*associated, *((one, place) for place, one in enumerate(objects))]


def _mark(forms: Sequence[tuple[str, int]], marks: list[bool], fits: Callable[[str], bool]) -> bool:
    """Mark the first object with a word that fits, and return whether there is one."""
    place = next((place for word, place in forms if fits(word)), None)
    if place is not None:
        marks[place] = True
    return place is not None


def _percent(part: int, whole: int) -> float:
    return round(part / (whole + _START) * 100, 1)
