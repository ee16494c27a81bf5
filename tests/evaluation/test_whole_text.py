"""Whole texts by BLEU, METEOR, words and characters, by hand."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import nltk.corpus
import pytest
from nltk.corpus.reader import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from slime_vlm.evaluation.metrics.whole_text import lacking_for_texts, text_similarity


@dataclass(frozen=True)
class Lemma:
    word: str

    def name(self) -> str:
        return self.word


@dataclass(frozen=True)
class Synonyms:
    """WordNet with one set of synonyms."""

    words: tuple[str, ...]

    def synsets(self, word: str) -> list[Synonyms]:
        return [self] if word in self.words else []

    def lemmas(self) -> list[Lemma]:
        return [Lemma(word) for word in self.words]


CARS = Synonyms(("car", "auto"))


def test_a_synonym_counts_in_meteor_alone() -> None:
    # No two words in a row are right, so BLEU is 0. METEOR matches all three in one chunk: 1 - 0.5 * (1/3)^3 = 53/54.
    # Of three words two are shared, and 4 of 16 characters differ.
    assert text_similarity("the car stopped", "the auto stopped", CARS) == pytest.approx((53 / 54 + 2 / 3 + 3 / 4) / 4)
    # Without it METEOR matches two words in two chunks: 2/3 * (1 - 0.5).
    lone = Synonyms(())
    assert text_similarity("the car stopped", "the auto stopped", lone) == pytest.approx((1 / 3 + 2 / 3 + 3 / 4) / 4)


def test_equal_texts() -> None:
    # METEOR punishes even a single chunk of four words: 1 - 0.5 * (1/4)^3.
    assert text_similarity("a b c d", "a b c d", CARS) == pytest.approx((1 + (1 - 0.5 / 64) + 1 + 1) / 4)
    assert text_similarity("", "a b c d", CARS) == 0.0
    # Only blanks: no words, and all of seven characters differ.
    assert text_similarity(" ", "abcdefg", CARS) == 0.0


def test_chinese_is_cut_into_words() -> None:
    # Four words: 我 来到 北京 大学. Between blanks it would be one word, with METEOR 1 - 0.5 and BLEU near 0.
    text = "我来到北京,大学"
    assert text_similarity(text, text, Synonyms(())) > 0.99


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("no_such_wordnet", WordNetCorpusReader, None))
    lacking_for_texts.cache_clear()
    assert lacking_for_texts().endswith("which is not there: python -m nltk.downloader wordnet")
    with pytest.raises(LookupError):
        text_similarity("x", "y")
    monkeypatch.setitem(sys.modules, "jieba", None)
    lacking_for_texts.cache_clear()
    assert lacking_for_texts() == ('whole texts need jieba, which is not installed: pip install "slime-vlm[scores]"')
    monkeypatch.undo()
    lacking_for_texts.cache_clear()
