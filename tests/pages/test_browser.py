"""Browser-laid documents: what is stated, what is asked, what is held out; printed ones where Chromium is at hand."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.pages import wordings
from slime_vlm.pages.browser import BrowserPages
from slime_vlm.pages.browser.asking import asked_key, is_heldout_question
from slime_vlm.pages.browser.fonts import PACKAGES, Family, read_families
from slime_vlm.pages.browser.printing import find_browser
from slime_vlm.pages.browser.sentences import (
    AREAS,
    FIRST_SENTENCES,
    MORE_SENTENCES,
    plain_text,
    read_sentences,
    sentences,
)
from slime_vlm.pages.browser.templates import KIND_NAMES, TEMPLATES, templates_of
from slime_vlm.pages.browser.templates.registry import NO_KIND
from slime_vlm.pages.browser.thesaurus import concepts, later_concepts
from slime_vlm.pages.browser.values import KINDS, SHARED_KINDS, draw_manner, draw_value
from slime_vlm.pages.browser.vocabulary import QUANTITIES, VOCABULARIES
from slime_vlm.pages.debian_packages import read_package_list
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.scan_look.effects import blur
from slime_vlm.pages.splits import (
    SPLITS,
    heldout_wordings,
    is_heldout_key,
    is_heldout_word,
    normal_wording,
    wordings_of,
)
from slime_vlm.pages.values import is_heldout
from slime_vlm.pages.word_lists import Words, read_words

pytest.importorskip("pypdfium2")
matplotlib = pytest.importorskip("matplotlib")

# Counts and checksums of the held-out part of the first lists: later additions must not change it.
HELDOUT_THESAURUS = (179, 1871506320)
HELDOUT_FIRST_WORDINGS = (49, 3569502094)

BOTH = pytest.mark.parametrize("split", ["train", "heldout"])
PRINTS = pytest.mark.skipif(find_browser() is None, reason="no Chromium")


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    held = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    families = []
    for name, split in (("DejaVuSans", "train"), ("DejaVuSerif", "heldout")):
        faces = {"regular": f"{name}.ttf", "bold": f"{name}-Bold.ttf"}
        for file in faces.values():
            shutil.copyfile(held / file, folder / file)
        families.append(vars(Family(name, "fonts-dejavu-core", split, "text", faces)))
    (folder / "families.json").write_text(json.dumps(families))
    return folder


@pytest.fixture(scope="module")
def printed(fonts: Path) -> dict[str, list[ReadablePage]]:
    pages = {}
    for split in ("train", "heldout"):
        source = BrowserPages(fonts, fonts / "printed", split, batch=12, overview=0.15)
        pages[split] = [source.page(seed) for seed in range(12)]
    return pages


def test_there_are_enough_templates_and_a_third_is_held_out() -> None:
    held = templates_of("heldout")
    assert len(TEMPLATES) >= 60
    assert len(held) / len(TEMPLATES) == pytest.approx(1 / 3, abs=0.05)
    kinds = {split: {one.kind for one in templates_of(split)} for split in ("train", "heldout")}
    assert kinds["train"] - {NO_KIND} == kinds["heldout"] == set(KIND_NAMES)


def test_there_are_enough_wordings_and_a_fifth_is_held_out() -> None:
    patterns = [pattern for family in wordings.FAMILIES.values() for pattern in family]
    assert len(set(patterns)) >= 150
    held = sum(len(wordings_of(family, "heldout")) for family in wordings.FAMILIES.values())
    assert held / len(patterns) == pytest.approx(0.2, abs=0.06)
    for name, family in wordings.FAMILIES.items():
        assert wordings_of(family, "train"), name
        assert wordings_of(family, "heldout"), name


def test_fonts_of_one_foundry_are_in_one_split() -> None:
    packages = read_package_list(PACKAGES)  # refuses a publisher in both splits
    assert len({package.name for package in packages}) == len(packages)
    assert {package.use for package in packages} == {"text", "display"}
    assert sum(package.split == "heldout" for package in packages) >= 20


def test_the_thesaurus_is_sound() -> None:
    for concept in concepts("train").values():
        assert concept.kind in KINDS, concept.name
        assert len(concept.keys) >= 2, concept.name
        assert concept.nouns, concept.name
    assert len(concepts("heldout")) >= 150
    assert "How much do I owe?" in concepts("train")["amount_due"].questions
    assert "Amount payable" in concepts("train")["amount_due"].keys


def test_later_additions_serve_training_and_leave_the_heldout_split_as_it_was() -> None:
    heldout, train = concepts("heldout"), concepts("train")
    assert not set(later_concepts()) & set(heldout)
    assert len(later_concepts()) >= 150
    held = "\n".join(repr(concept) for concept in heldout.values())
    assert (len(heldout), zlib.crc32(held.encode())) == HELDOUT_THESAURUS
    for name, concept in heldout.items():
        more = train[name]
        assert (more.kind, more.group) == (concept.kind, concept.group)
        for part in ("keys", "nouns", "questions"):
            first = getattr(concept, part)
            assert getattr(more, part)[: len(first)] == first, (name, part)
        assert more.keys_of("heldout") == concept.keys_of("heldout"), name
    # What is held out of the additions is in no part of a training page.
    later = [train[name] for name in later_concepts()]
    assert not any(is_heldout_key(text) for concept in later for text in (*concept.keys, *concept.nouns))


def test_the_first_patterns_stay_in_their_split() -> None:
    held = heldout_wordings()
    first = sorted({normal_wording(p) for family in wordings.FIRST_WORDINGS.values() for p in family} & held)
    assert (len(first), zlib.crc32("|".join(first).encode())) == HELDOUT_FIRST_WORDINGS
    # Hand-computed: the CRC-32 of these texts leaves 0 and not 0 when divided by five.
    assert zlib.crc32(b"which field gives {v}") % 5 == 0
    assert "which field gives {v}" in held
    assert zlib.crc32(b"which field reads {v}") % 5 != 0
    assert "which field reads {v}" not in held


@BOTH
def test_every_template_writes_and_keeps_to_its_split(fonts: Path, split: str) -> None:
    for template in templates_of(split):
        source = BrowserPages(fonts, fonts / "none", split, templates=(template.name,))
        stated = 0
        for seed in range(4):
            css, html, document = source.write(seed, 3)
            assert "@page d3" in css
            assert document.template == template.name
            assert html.count("href=") == len(document.marks), template.name
            for fact in document.facts:
                assert document.marks[fact.value] == " ".join(fact.answer.split()), template.name
                if fact.family == "field" and fact.phrase:
                    assert is_heldout_key(fact.phrase) == (split == "heldout"), (template.name, fact.phrase)
            stated += len(document.facts)
        assert stated >= 4, template.name


def test_the_same_seed_writes_the_same_document(fonts: Path) -> None:
    first, second = (BrowserPages(fonts, fonts / "none").write(5, 0) for _ in range(2))
    assert first[:2] == second[:2]


@BOTH
def test_values_and_words_keep_to_their_split(split: str) -> None:
    rng = random.Random(1)
    words = Words(read_words(None), split)
    manner = draw_manner(rng)
    for kind in KINDS:
        for _ in range(12):
            value = draw_value(rng, kind, manner, words)
            assert value.strip() == value
            if kind not in SHARED_KINDS and kind not in ("range", "percent", "count") and len(value) >= 4:
                assert is_heldout(value) == (split == "heldout"), (kind, value)
    assert all(is_heldout_word(word) == (split == "heldout") for word in words.words)


def test_a_key_without_letters_can_be_written() -> None:
    assert {asked_key(random.Random(seed), key) for seed in range(40) for key in ("", " :")} == {""}


def test_sentences_are_held_out_whole() -> None:
    train, heldout = ([s for area in AREAS for s in sentences(split, area)] for split in ("train", "heldout"))
    assert {s.plain for s in train}.isdisjoint(s.plain for s in heldout)
    assert len({s.pieces for s in (*train, *heldout)}) >= 700
    for area in AREAS:
        held = [s for s in sentences("heldout", area) if s.area == area]
        own = [s for s in sentences("train", area) if s.area == area]
        assert len(held) / len(held + own) == pytest.approx(0.2, abs=0.06), area


def test_the_first_sentences_keep_their_split() -> None:
    held = {s.plain for area in AREAS for s in sentences("heldout", area)}
    first = [plain_text(text) for _, text, _ in read_sentences(FIRST_SENTENCES)]
    assert len(first) == 87
    assert len(held & set(first)) == 17
    assert zlib.crc32("\n".join(sorted(held & set(first))).encode()) == 1966568538
    assert "Sales rose by percent in the last quarter." in held
    assert "The keys can be collected from person." not in held


def test_later_sentences_are_held_out_by_their_own_hash() -> None:
    held = {s.plain for area in AREAS for s in sentences("heldout", area)}
    for _, text, _ in read_sentences(MORE_SENTENCES):
        plain = plain_text(text)
        assert (plain in held) == (zlib.crc32(plain.lower().encode()) % 5 == 0), text


def test_every_sentence_states_one_thing_and_is_asked_about() -> None:
    entries = [*read_sentences(FIRST_SENTENCES), *read_sentences(MORE_SENTENCES)]
    texts = [text for _, text, _ in entries]
    assert len(set(texts)) == len(texts)
    assert {area for area, _, _ in entries} == set(AREAS)
    answered: dict[tuple[str, str], object] = {}
    for sentence in {s.pieces: s for area in AREAS for split in SPLITS for s in sentences(split, area)}.values():
        roles = Counter(role for role, _ in sentence.pieces)
        assert roles["value"] == 1, sentence
        assert roles["key"] or roles["open"] == 1, sentence
        assert bool(sentence.questions) == (not roles["open"]), sentence
        assert len(set(sentence.questions)) == len(sentence.questions), sentence
        for role, text in sentence.pieces:
            assert role not in ("value", "extra") or text in KINDS, sentence
            assert role not in ("text", "key") or not set(text) & set("[]{}<>*|"), sentence
        # Sentences that differ only in what is asked have no question in common.
        for question in sentence.questions:
            assert answered.setdefault((sentence.plain, question.lower()), sentence.pieces) == sentence.pieces, question


def test_no_page_answers_a_question_twice(fonts: Path) -> None:
    source = BrowserPages(fonts, fonts / "none")
    for seed in range(40):
        asked = Counter(q for fact in source.write(seed, 0)[2].facts for q in fact.questions)
        assert not asked or max(asked.values()) == 1, seed


def test_a_faulty_line_of_sentences_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("# ours\npay | [Due] on {date}.\n")
    with pytest.raises(ValueError, match=r"own\.txt:2: expected 'area \| sentence"):
        read_sentences(tmp_path / "own.txt")


@BOTH
def test_quantities_have_their_units(split: str) -> None:
    words = Words(read_words(None), split)
    rng = random.Random(3)
    for quantity, units in QUANTITIES.items():
        for _ in range(20):
            value = draw_value(rng, quantity, draw_manner(rng), words)
            assert value[0].isdigit(), value
            assert any(value.endswith(unit) for unit in units), value
    for kind, terms in VOCABULARIES.items():
        assert draw_value(rng, kind, draw_manner(rng), words) in terms


def test_what_is_missing_is_said(fonts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fetch_fonts"):
        BrowserPages(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="no template 'menu_of_day'"):
        BrowserPages(fonts, tmp_path, "train", templates=("menu_of_day",))
    monkeypatch.setattr("slime_vlm.pages.browser.printing.find_browser", lambda: None)
    with pytest.raises(ConfigError, match="apt-get install chromium"):
        BrowserPages(fonts, tmp_path, batch=2).page(0)
    assert [family.name for family in read_families(fonts, "heldout")] == ["DejaVuSerif"]


@PRINTS
def test_answers_stand_where_they_say(printed: dict[str, list[ReadablePage]]) -> None:
    families: Counter[str] = Counter()
    for page in [*printed["train"], *printed["heldout"]]:
        assert page.questions
        for question in page.questions:
            families[question.family] += 1
            if question.family in ("absent", "kind", "colour", "position"):
                assert not len(question.value)
                continue
            written = "".join(page.text_at(question.value).split()).lower()
            assert written == "".join(question.answer.split()).lower(), (page.template, question)
        for question in page.questions:
            assert (question.family == "absent") == (question.answer == ABSENT)
    assert {"field", "synonym", "title", "absent", "cell"} <= set(families)


@PRINTS
def test_rare_families_are_asked_more_often_in_training_alone(
    fonts: Path, printed: dict[str, list[ReadablePage]]
) -> None:
    asked = Counter[str]()
    for rare in (1.0, 2.0):
        source = BrowserPages(fonts, fonts / "printed", "train", batch=12, overview=0.15, rare=rare)
        pages = [source.page(seed) for seed in range(12)]
        families = Counter(question.family for page in pages for question in page.questions)
        asked[f"rare {rare}"] = sum(families[name] for name in ("synonym", "reverse", "row", "in_section", "sentence"))
        for page, usual in zip(pages, printed["train"], strict=True):
            texts = [question.text.lower().rstrip("?.") for question in page.questions]
            assert len(set(texts)) == len(texts)
            if rare == 1.0:
                assert [q.text for q in page.questions] == [q.text for q in usual.questions]
    assert asked["rare 2.0"] > 1.3 * asked["rare 1.0"]
    with pytest.raises(ConfigError, match="expected 1 or more"):
        BrowserPages(fonts, fonts / "printed", rare=0.5)


@PRINTS
def test_characters_stand_on_ink(printed: dict[str, list[ReadablePage]]) -> None:
    for page in printed["train"]:
        boxes = np.round(page.boxes).astype(int)
        inked = 0
        letters = [i for i, character in enumerate(page.characters) if character.isalnum()]
        for i in letters:
            x0, y0, x1, y1 = boxes[i].tolist()
            part = page.image[y0:y1, x0:x1].reshape(-1, 3).astype(int)
            inked += bool(len(part)) and int(np.ptp(part, axis=0).max()) > 25
        assert inked >= 0.97 * len(letters), page.template


@PRINTS
def test_splits_share_no_wording_template_or_key(printed: dict[str, list[ReadablePage]]) -> None:
    asked, templates = {}, {}
    for split, pages in printed.items():
        asked[split] = {question.wording for page in pages for question in page.questions}
        templates[split] = {page.template for page in pages}
    assert asked["train"].isdisjoint(asked["heldout"])
    assert templates["train"].isdisjoint(templates["heldout"])
    whole = {q.wording for page in printed["heldout"] for q in page.questions if q.family in ("synonym", "sentence")}
    assert all(is_heldout_question(wording) for wording in whole if "{" not in wording)


@PRINTS
def test_a_page_that_is_too_large_is_drawn_smaller(fonts: Path) -> None:
    """Its scale was a number of numpy's, which Pillow's blur refuses."""
    page = BrowserPages(fonts, fonts / "printed", "train", batch=12, max_side=900).page(3)
    assert max(page.image.shape) <= 910
    assert type(page.x_height) is float
    blur(np.random.default_rng(0), page.image, page.x_height)


@PRINTS
def test_documents_come_again_at_other_sizes(fonts: Path, printed: dict[str, list[ReadablePage]]) -> None:
    source = BrowserPages(fonts, fonts / "printed", "train", batch=12, documents=12, overview=0.15)
    again = pickle.loads(pickle.dumps(source)).page(2)
    first = printed["train"][2]
    assert np.array_equal(first.image, again.image)
    assert [q.text for q in first.questions] == [q.text for q in again.questions]
    other = source.page(14)
    assert other.characters == first.characters
    assert other.image.shape != first.image.shape
