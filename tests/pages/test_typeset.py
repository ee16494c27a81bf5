"""Typeset pages: characters where they are printed, answers that stand there, publishers kept apart."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.pages.debian_packages import ListedPackage, read_package_list
from slime_vlm.pages.page import ABSENT
from slime_vlm.pages.pdf_pages import _levelled, open_pdf, read_pdf_page
from slime_vlm.pages.splits import wordings_of
from slime_vlm.pages.typeset import TypesetPages
from slime_vlm.pages.typeset.source import PACKAGES
from slime_vlm.pages.typeset.wordings import TYPESET_WORDINGS
from slime_vlm.pages.word_lists import Words, invented_word, read_words
from tests.pages.tiny_pdf import write_pdf

pytest.importorskip("pypdfium2")

PAGE = [
    (72, 780, 24, "Zorvex Manual"),
    (72, 740, 14, "2.3 Mounting the bracket"),
    (72, 715, 10, "Version 4.1 holds seven clamps in two rows near the upper door."),
    (72, 700, 10, "Author: Mina Quell"),
    (72, 685, 10, "Figure 4: Front of the bracket"),
    (72, 670, 10, "Write to zorvex@example.org before any clamp is moved from here"),
    (290, 40, 10, "17"),
]
LISTED = [ListedPackage("good-doc", "Good", "train", "MIT"), ListedPackage("other-doc", "Other", "heldout", "MIT")]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    entries = []
    for name in ("good-doc", "other-doc"):
        (tmp_path / name).mkdir()
        write_pdf(tmp_path / name / "a.pdf", [PAGE, PAGE])
        entries.append({"path": f"{name}/a.pdf", "package": name, "version": "1"})
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    return tmp_path


def test_characters_stand_where_they_are_printed(cache: Path) -> None:
    page = TypesetPages(cache, packages=LISTED, x_height=(12, 12)).page(0)
    assert page.line_texts() == [text for *_, text in PAGE]
    assert page.boxes.shape == (len(page.characters), 4)
    ink = page.image.min(-1) < 128
    for character, (x0, y0, x1, y1) in zip(page.characters, np.round(page.boxes).astype(int).tolist(), strict=True):
        assert ink[y0:y1, x0:x1].any() == (character != " "), character
    outside = ink.copy()
    for x0, y0, x1, y1 in np.round(page.boxes).astype(int).tolist():
        outside[y0:y1, x0 - 1 : x1 + 1] = False
    assert not outside.any()


def test_a_character_beyond_16_bits_is_one(tmp_path: Path) -> None:
    """pypdfium2 gives its halves one by one, and JSON would join them: then text and boxes differ in length."""
    write_pdf(
        tmp_path / "a.pdf",
        [[(72, 700, 12, "Angle ~ is 4 degrees")]],
        meant={"~": "\N{MATHEMATICAL ITALIC SMALL EPSILON}"},
    )
    text = read_pdf_page(open_pdf(str(tmp_path / "a.pdf"))[0])
    assert text.characters == "Angle \N{REPLACEMENT CHARACTER} is 4 degrees"
    assert len(text.boxes) == len(text.lines) == len(text.characters)


def test_pages_have_the_wanted_x_height(cache: Path) -> None:
    page = TypesetPages(cache, packages=LISTED, x_height=(20, 20)).page(1)
    ink = page.image.min(-1) < 128
    # The m of "moved" is in the body's size.
    x0, y0, x1, y1 = np.round(page.boxes[page.characters.index("moved")]).astype(int).tolist()
    assert ink[y0:y1, x0:x1].any(1).sum() == pytest.approx(20, abs=1.5)


def test_answers_are_the_printed_characters(cache: Path) -> None:
    source = TypesetPages(cache, packages=LISTED, questions=12, absent=0.15)
    families = set()
    for seed in range(40):
        page = source.page(seed)
        for question in page.questions:
            families.add(question.family)
            if question.answer == ABSENT:
                assert not len(question.value)
            else:
                assert page.text_at(question.value) == question.answer
    assert {
        "title",
        "section",
        "field",
        "caption",
        "version",
        "email",
        "page_number",
        "number_of",
        "absent",
    } <= families


def test_a_line_goes_on_to_its_end(cache: Path) -> None:
    """Where an answer about running text stops is not left to chance."""
    source = TypesetPages(cache, packages=LISTED, questions=12, absent=0.0)
    text = dict((y, text) for _, y, _, text in PAGE)[670]
    pages = [source.page(seed) for seed in range(20)]
    found = 0
    for page, question in ((one, question) for one in pages for question in one.questions):
        key = page.text_at(question.key) if len(question.key) else ""
        if question.family == "line" and text.startswith(key):
            found += 1
            assert question.answer == text.removeprefix(key).strip()
    assert found > 3


def test_the_same_seed_gives_the_same_page_and_workers_can_have_it(cache: Path) -> None:
    source = TypesetPages(cache, packages=LISTED)
    first = source.page(3)
    again = pickle.loads(pickle.dumps(source)).page(3)
    assert np.array_equal(first.image, again.image)
    assert [q.text for q in first.questions] == [q.text for q in again.questions]


def test_publishers_and_wordings_do_not_meet(cache: Path) -> None:
    packages = read_package_list(PACKAGES)
    train = {p.publisher for p in packages if p.split == "train"}
    assert train.isdisjoint(p.publisher for p in packages if p.split == "heldout")
    asked = {}
    for split in ("train", "heldout"):
        source = TypesetPages(cache, split, packages=LISTED, questions=12)
        pages = [source.page(seed) for seed in range(30)]
        assert {page.template.split("/")[0] for page in pages} == {"good-doc" if split == "train" else "other-doc"}
        asked[split] = {q.wording for page in pages for q in page.questions}
    assert asked["train"].isdisjoint(asked["heldout"])


def test_every_family_has_wordings_in_both_splits() -> None:
    for family, patterns in TYPESET_WORDINGS.items():
        train, heldout = wordings_of(patterns, "train"), wordings_of(patterns, "heldout")
        assert train, family
        assert heldout, family
        assert len(train) + len(heldout) == len(patterns)


def test_a_cache_without_pdfs_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fetch_typeset_pdfs"):
        TypesetPages(tmp_path, packages=LISTED)


def test_a_damaged_pdf_is_passed_over(cache: Path) -> None:
    (cache / "good-doc" / "a.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(ConfigError, match="none of"):
        TypesetPages(cache, packages=LISTED).page(0)


def test_publisher_in_both_splits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packages.tsv"
    path.write_text("a\tX\ttrain\tMIT\nb\tX\theldout\tMIT\n")
    with pytest.raises(ConfigError, match="both splits"):
        read_package_list(path)


def test_pieces_of_a_line_are_one_line_and_columns_are_two(tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf", [[(72, 700, 10, "left one"), (111, 700, 10, "more"), (300, 700, 10, "right")]])
    document = open_pdf(str(tmp_path / "a.pdf"))
    text = read_pdf_page(document[0])
    document.close()
    assert text.characters == "left one moreright"
    assert text.lines.tolist() == [0] * 13 + [1] * 5


def test_words_are_split() -> None:
    listed = read_words(None)
    train, heldout = Words(listed, "train"), Words(listed, "heldout")
    assert set(train.words).isdisjoint(heldout.words)
    rng = random.Random(0)
    drawn = {train.word(rng) for _ in range(300)}
    assert drawn.isdisjoint(heldout.words)
    assert all(1 <= len(invented_word(rng)) <= 12 for _ in range(200))


def test_characters_of_a_line_stand_level() -> None:
    # A taller "p", and an exponent, which stands higher; the second line is another one.
    boxes = np.array([[0, 10, 5, 20], [5, 10, 10, 23], [10, 10, 15, 20], [15, 4, 18, 12], [0, 30, 5, 40]], np.float32)
    levelled = _levelled(boxes, np.array([0, 0, 0, 0, 1], np.int32))
    assert levelled[:, 1].tolist() == [10, 10, 10, 4, 30]
    assert levelled[:, 3].tolist() == [20, 20, 20, 12, 40]
    assert levelled[:, [0, 2]].tolist() == boxes[:, [0, 2]].tolist()


def test_a_page_without_characters_is_level() -> None:
    assert _levelled(np.zeros((0, 4), np.float32), np.zeros(0, np.int32)).shape == (0, 4)


def test_a_window_holds_whole_characters_alone(cache: Path) -> None:
    page = TypesetPages(cache, packages=LISTED).page(3)
    window = page.window((200, 150), np.random.default_rng(0))
    assert window.image.shape == (200, 150, 3)
    assert 0 < len(window.characters) < len(page.characters)
    assert len(window.boxes) == len(window.lines) == len(window.characters)
    assert (window.boxes >= 0).all()
    assert (window.boxes[:, 2] <= 150).all()
    assert (window.boxes[:, 3] <= 200).all()
    # Lines are counted anew, and what they say is part of what they said.
    assert window.lines.max() + 1 == len(np.unique(window.lines))
    assert all(any(text in whole for whole in page.line_texts()) for text in window.line_texts())
    assert window.questions == []
