"""Pages: the same for the same seed, honest about their splits, and exact about where everything is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.model.tiling import choose_grid
from slime_vlm.pages import (
    ABSENT,
    Page,
    PageSettings,
    characters,
    is_heldout,
    kinds,
    make_page,
    render,
    words,
    write_pages,
)
from slime_vlm.pages.fonts import FONTS, font_metrics, font_names
from slime_vlm.pages.values import draw_value
from slime_vlm.pages.vocabulary import FILLER, OUTSIDE, OUTSIDE_HELDOUT, is_heldout_pairing

NATIVE = {"page_scale": (0.8, 1.3), "tiles": (2, 6)}
ASKED = tuple(kind for kind in kinds() if kind != "specimen")  # a specimen sheet has nothing to ask
ONE_TILE = {"page_scale": (0.8, 1.3), "tiles": (1, 1), "max_tiles": 1}


@cache
def pages(kind: str, split: str = "train", count: int = 60) -> tuple[Page, ...]:
    settings = PageSettings(kinds={kind: 1.0}, split=split, **NATIVE)
    one_tile = PageSettings(kinds={kind: 1.0}, split=split, **ONE_TILE)
    return tuple(make_page(seed, one_tile if seed % 3 == 0 else settings) for seed in range(count))


def grid_boxes(page: Page) -> list[np.ndarray]:
    """Boxes of every run in pixels of the tile grid."""
    grid = choose_grid(page.height, page.width, 256, 1 if max(page.height, page.width) < 334 else 7)
    scale = np.array([grid.scaled_width / page.width, grid.scaled_height / page.height] * 2)
    paste = np.array([grid.left, grid.top] * 2)
    return [run.boxes * scale + paste for run in page.runs]


def fingerprint(page: Page) -> tuple[object, ...]:
    boxes = b"".join(run.boxes.tobytes() for run in page.runs)
    texts = tuple((run.text, run.role, run.words, run.word_runs) for run in page.runs)
    return (page.height, page.width, texts, boxes, tuple(page.questions), tuple(page.drawings), tuple(page.styles))


@pytest.mark.parametrize("kind", kinds())
def test_same_seed_same_page(kind):
    settings = PageSettings(kinds={kind: 1.0}, **NATIVE)
    first, second = make_page(11, settings), make_page(11, settings)
    assert fingerprint(first) == fingerprint(second)
    np.testing.assert_array_equal(render(first), render(second))
    assert fingerprint(first) != fingerprint(make_page(12, settings))


def digest_of_pages() -> str:
    """Of the text, questions and pixels of a few pages."""
    settings = PageSettings(**NATIVE)
    digest = hashlib.sha256()
    for seed in range(12):
        page = make_page(seed, settings)
        digest.update(repr([(run.text, run.words) for run in page.runs] + page.questions).encode())
        digest.update(render(page).tobytes())
    return digest.hexdigest()


def test_same_seed_same_bytes_in_another_process():
    program = "import sys; from tests.pages.test_pages import digest_of_pages; sys.stdout.write(digest_of_pages())"
    # Its sets have another order than those of this process.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == digest_of_pages()


@pytest.mark.parametrize("kind", ASKED)
def test_answers_are_on_the_page(kind):
    for page in pages(kind):
        assert page.kind == kind
        assert page.questions
        assert len({q.text.lower().rstrip("?.") for q in page.questions}) == len(page.questions)
        for question in page.questions:
            assert question.kind == kind
            if question.value_runs:
                (value,) = question.value_runs
                assert page.runs[value].text == question.answer
            else:
                assert question.answer == ABSENT
                assert question.key_runs == ()


def test_specimens_are_full_of_text_and_ask_nothing():
    known, printable = set(words()), set(characters())
    form = np.mean([sum(len(run.text) for run in page.runs) for page in pages("form")])
    specimen = pages("specimen")
    assert np.mean([sum(len(run.text) for run in page.runs) for page in specimen]) > 1.2 * form
    for page in specimen:
        assert page.questions == []
        assert all(set(run.words) <= known and set(run.text) <= printable for run in page.runs)


@pytest.mark.parametrize("kind", ASKED)
def test_a_question_has_one_answer(kind):
    """Runs that would answer the same question, told by their words, are unique on a page."""
    for page in pages(kind):
        owners = [run.words for run in page.runs if run.role in ("value", "cell", "label")]
        assert len(owners) == len(set(owners))
        keys = [set(run.words) for run in page.runs if run.role == "key"]
        assert not any(a <= b for i, a in enumerate(keys) for j, b in enumerate(keys) if i != j)


@pytest.mark.parametrize("kind", ASKED)
def test_runs_know_their_words(kind):
    known, printable = set(words()), set(characters())
    for page in pages(kind):
        for run in page.runs:
            assert len(run.words) <= 2
            assert set(run.words) <= known
            assert set(run.text) <= printable
            assert run.boxes.shape == (len(run.text), 4)
            assert run.boxes.dtype == np.float32
            if run.role in ("value", "cell"):
                assert len(run.word_runs) == len(run.words) > 0
            for word, owner in zip(run.words, run.word_runs, strict=False):
                assert word in page.runs[owner].words


@pytest.mark.parametrize("kind", kinds())
def test_text_keeps_its_distances(kind):
    """Nothing leaves the page or overlaps, and a token of 32 pixels holds at most five characters."""
    for page in pages(kind):
        boxes = grid_boxes(page)
        for run, box in zip(page.runs, boxes, strict=True):
            assert run.boxes[:, [0, 2]].min() >= 0
            assert run.boxes[:, [0, 2]].max() <= page.width
            assert run.boxes[:, 1].min() >= -2
            assert run.boxes[:, 3].max() <= page.height + 2
            centres = (box[:, 0] + box[:, 2]) / 2
            held = np.searchsorted(centres, centres + 32.0) - np.arange(len(centres))
            assert held.max() <= 6
            assert (centres[5:] - centres[:-5]).min(initial=32.0) >= 31.0
        for i, a in enumerate(boxes):
            for j, b in enumerate(boxes[:i]):
                apart_x = max(a[0, 0] - b[-1, 2], b[0, 0] - a[-1, 2])
                between = abs((a[0, 1] + a[0, 3]) - (b[0, 1] + b[0, 3])) / 2
                assert apart_x > 6 or between > 20, (page.seed, page.layout, page.runs[i].text, page.runs[j].text)


@pytest.mark.parametrize("kind", ["form", "table"])
def test_lines_are_a_token_apart(kind):
    for page in pages(kind):
        boxes = grid_boxes(page)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                if a[0, 0] < b[-1, 2] and b[0, 0] < a[-1, 2]:
                    assert abs((a[0, 1] + a[0, 3]) - (b[0, 1] + b[0, 3])) / 2 > 28


@pytest.mark.parametrize("kind", kinds())
def test_ink_is_where_the_boxes_say(kind):
    """Text drawn alone, without shapes and noise, covers its boxes and nothing else."""
    for page in pages(kind)[:12]:
        page = Page(**{**vars(page), "drawings": [], "noise": 0.0, "paper": (255, 255, 255)})
        page.styles = [type(s)(s.font, s.size, (0, 0, 0), s.baseline) for s in page.styles]
        ink = (255 - render(page).min(axis=2)).astype(float)
        inside = np.zeros(ink.shape, bool)
        for run, style in zip(page.runs, page.styles, strict=True):
            for character, (x0, y0, x1, y1) in zip(run.text, run.boxes, strict=True):
                pad = 0.2 * style.size
                area = np.s_[max(0, int(y0 - 2)) : int(y1 + 3), max(0, int(x0 - pad)) : int(x1 + pad + 1)]
                inside[area] = True
                middle = ink[max(0, int(y0)) : int(y1 + 1), max(0, int(x0)) : int(x1 + 1)]
                assert character == " " or middle.max() > 60
        assert ink[~inside].max() < 60


def test_native_text_has_the_size_that_was_asked():
    settings = PageSettings(kinds={"form": 1.0}, text_px=(24, 24), **NATIVE)
    for seed in range(20):
        page = make_page(seed, settings)
        grid = choose_grid(page.height, page.width, 256, 7)
        assert page.styles[0].size * grid.scaled_width / page.width == pytest.approx(24, abs=1.0)


@pytest.mark.parametrize("tiles", [(2, 2), (4, 4), (6, 6), (2, 6)])
def test_the_grid_has_the_tiles_that_were_asked(tiles):
    settings = PageSettings(tiles=tiles, page_scale=(0.8, 1.3))
    sizes = set()
    for seed in range(40):
        page = make_page(seed, settings)
        assert tiles[0] <= choose_grid(page.height, page.width, 256, 7).num_tiles <= tiles[1]
        sizes.add((page.height, page.width))
    assert len(sizes) > 30


def test_default_pages_are_large():
    sides = [max(page.height, page.width) for page in (make_page(seed, PageSettings()) for seed in range(60))]
    assert min(sides) >= 700
    assert 2000 < max(sides) <= 3000


def test_heldout_values_are_never_printed_in_training():
    trained: set[str] = set()
    for seed in range(2000):
        page = make_page(seed, PageSettings(questions=2, **NATIVE))
        trained |= {run.text for run in page.runs if run.role in ("value", "cell", "label")}
    assert len(trained) > 10000
    assert not any(is_heldout(text) for text in trained)
    asked = set()
    for seed in range(200):
        page = make_page(seed, PageSettings(split="heldout", **NATIVE))
        values = {run.text for run in page.runs if run.role in ("value", "cell", "label")}
        assert all(is_heldout(text) for text in values)
        asked |= {q.answer for q in page.questions if q.value_runs and page.runs[q.value_runs[0]].role != "key"}
    assert len(asked) > 300
    assert not asked & trained


def test_heldout_layouts_and_pairings_are_never_seen_in_training():
    for kind in ASKED:
        trained = {page.layout for page in pages(kind)}
        heldout = {page.layout for page in pages(kind, "heldout")}
        assert heldout - trained, kind
        assert "" not in trained
    for page in pages("table"):
        for question in page.questions:
            if question.value_runs:
                assert not is_heldout_pairing(*page.runs[question.value_runs[0]].words)
    pairs = [p.runs[q.value_runs[0]].words for p in pages("table", "heldout") for q in p.questions if q.value_runs]
    assert sum(is_heldout_pairing(*pair) for pair in pairs) > 20


def test_font_families_of_the_splits_are_disjoint():
    families = {split: {FONTS[name].family for name in font_names(split)} for split in ("train", "heldout_fonts")}
    assert font_names("heldout") == font_names("train")
    assert not families["train"] & families["heldout_fonts"]
    assert len(families["train"]) >= 8
    assert len(families["heldout_fonts"]) >= 3
    used = {style.font for page in pages("form", "heldout_fonts") for style in page.styles}
    assert used <= set(font_names("heldout_fonts"))


def test_every_font_is_sound():
    """A face whose measures disagree with its drawings would put boxes where no ink is."""
    for name in FONTS:
        advances = font_metrics(name).advances[33:127]
        assert advances.min() > 0.1, name
        assert font_metrics(name).advances[ord("%")] > 0.5, name


def test_pillow_alone_is_enough_when_asked():
    page = make_page(1, PageSettings(fonts="pillow", **NATIVE))
    assert {style.font for style in page.styles} == {"Aileron"}
    with pytest.raises(ConfigError, match="no held-out family"):
        make_page(1, PageSettings(fonts="pillow", split="heldout_fonts", **NATIVE))


def test_a_missing_font_package_is_named(monkeypatch):
    from slime_vlm.pages import fonts

    monkeypatch.setitem(fonts.FONTS, "Missing", fonts.FontFile("Missing", "no_such_package", "a.ttf"))
    with pytest.raises(ConfigError, match=r"slime-vlm\[eval\].*slime pages --fonts pillow"):
        fonts.font_metrics("Missing")


def test_the_vocabulary_fits_the_slots():
    vocabulary = words()
    assert len(vocabulary) == len(set(vocabulary)) <= 398
    assert len(characters()) == len(set(characters())) <= 79
    assert not set(FILLER) & {run_word for page in pages("form") for run in page.runs for run_word in run.words}
    letters = set()
    for kind in kinds():
        for page in pages(kind):
            for question in page.questions:
                assert set(question.text + question.answer) <= set(characters())
                plain = question.text.lower().replace("?", "").replace(".", "").replace(",", "").split()
                if not any(w.removesuffix("s") in OUTSIDE or w in OUTSIDE for w in plain):
                    letters |= set(plain) - set(vocabulary)
    # What is left over are the names of sides, which are spelled, as are things that no page is about.
    assert all(len(word) == 2 for word in letters - {"not"})


def test_absent_things_are_asked_for():
    questions = [q for kind in kinds() for page in pages(kind) for q in page.questions]
    assert 0.06 < np.mean([q.answer == ABSENT for q in questions]) < 0.14
    settings = PageSettings(absent=0.0, **NATIVE)
    assert all(q.value_runs for seed in range(50) for q in make_page(seed, settings).questions)


def test_some_questions_are_about_nothing_that_pages_hold():
    assert not {*OUTSIDE, *OUTSIDE_HELDOUT} & set(words())
    assert not set(OUTSIDE) & set(OUTSIDE_HELDOUT)
    for split, ours, others in (("train", OUTSIDE, OUTSIDE_HELDOUT), ("heldout", OUTSIDE_HELDOUT, OUTSIDE)):
        settings = PageSettings(absent=0.5, split=split, **NATIVE)
        questions = [q for seed in range(40) for q in make_page(seed, settings).questions]
        about = [set(q.text.lower().replace("?", "").split()) for q in questions if q.answer == ABSENT]
        plural = {f"{thing}s" for thing in ours}
        assert sum(bool(asked & ({*ours} | plural)) for asked in about) > 0.15 * len(about)
        assert not any(asked & set(others) for asked in about)


def test_values_have_the_length_that_was_asked():
    import random

    rng = random.Random(0)
    assert all(2 <= len(draw_value(rng, "code", "train", max_length=5)) <= 5 for _ in range(200))
    with pytest.raises(ConfigError, match="no date"):
        draw_value(rng, "date", "train", max_length=4)


def test_written_pages_are_conversation_records(tmp_path):
    target = write_pages(tmp_path, 6, 3, PageSettings(**NATIVE))
    records = [json.loads(line) for line in target.read_text().splitlines()]
    boxes = [json.loads(line) for line in (tmp_path / "boxes.jsonl").read_text().splitlines()]
    assert len(records) == len(boxes) == 6
    for record, box in zip(records, boxes, strict=True):
        assert set(record) == {"id", "image", "conversations"}
        with Image.open(tmp_path / record["image"]) as image:
            assert image.size == (box["width"], box["height"])
        senders = [turn["from"] for turn in record["conversations"]]
        assert senders == ["human", "gpt"] * (len(senders) // 2)
        assert record["conversations"][0]["value"].startswith("<image>\n")
        assert sum("<image>" in turn["value"] for turn in record["conversations"]) == 1
        for question, answer in zip(box["questions"], record["conversations"][1::2], strict=True):
            texts = [box["runs"][run]["text"] for run in question["value_runs"]]
            assert answer["value"] == (texts[0] if texts else ABSENT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": {"poem": 1.0}}, "unknown kind 'poem'"),
        ({"kinds": {}}, "no positive share"),
        ({"kinds": {"form": -1.0}}, "no positive share"),
        ({"split": "test"}, "unknown split"),
        ({"fonts": "system"}, "unknown fonts"),
        ({"tiles": [3, 2]}, "tiles is"),
        ({"text_px": 20}, "text_px is"),
        ({"text_px": (20, 90)}, "text_px up to"),
        ({"absent": 1.5}, "absent is"),
        ({"questions": 0}, "questions"),
        ({"color": "red"}, "unknown setting 'color'"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        PageSettings.from_dict(values)


def test_impossible_pages_are_named():
    with pytest.raises(ConfigError, match="no page of 1 to 1 tiles"):
        make_page(0, PageSettings(tiles=(1, 1), page_scale=(0.8, 1.3)))
    with pytest.raises(ConfigError, match="seed is -1"):
        make_page(-1, PageSettings())


def test_settings_take_lists_as_yaml_gives_them():
    assert PageSettings.from_dict({"tiles": [2, 4], "text_px": [18, 28]}) == PageSettings(
        tiles=(2, 4), text_px=(18, 28)
    )
