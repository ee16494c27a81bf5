"""Looks: seeded, within range, and boxes go where the pixels go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from slime_vlm.cli.app import app
from slime_vlm.errors import ConfigError
from slime_vlm.pages import PageSettings, make_page
from slime_vlm.pages.readable import ReadablePage, readable
from slime_vlm.pages.scan_look import LOOKS, apply_look
from slime_vlm.pages.scan_look.geometry import perspective, tilt
from slime_vlm.pages.scan_look.looks import _EFFECTS
from slime_vlm.pages.writing_readable import page_source
from tests.pages.tiny_pdf import write_pdf


@pytest.fixture(scope="module")
def page() -> ReadablePage:
    settings = PageSettings(fonts="pillow", noise=0.0, tiles=(2, 4), page_scale=(0.9, 1.1))
    return readable(make_page(11, settings))


def test_a_page_of_the_renderer_is_readable(page: ReadablePage) -> None:
    assert len(page.characters) == len(page.boxes) == len(page.lines)
    assert "".join(page.line_texts()) == page.characters
    for question in page.questions:
        if len(question.value):
            assert page.text_at(question.value) == question.answer


@pytest.mark.parametrize("name", _EFFECTS)
def test_effects_keep_shape_and_letters(page: ReadablePage, name: str) -> None:
    first, second = (_EFFECTS[name](np.random.default_rng(3), page.image, page.x_height) for _ in range(2))
    assert first.shape == page.image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert first.astype(float).std() > 5  # not wiped out


@pytest.mark.parametrize("move", [tilt, perspective])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_move_with_the_pixels(move: object, seed: int) -> None:
    image = np.full((600, 400, 3), 255, np.uint8)
    boxes = np.array([[x, y, x + 14, y + 20] for y in range(60, 540, 60) for x in range(40, 350, 50)], np.float32)
    for x0, y0, x1, y1 in boxes.astype(int).tolist():
        image[y0:y1, x0:x1] = (200, 0, 0)
    moved, placed, grown = move(np.random.default_rng(seed), image, boxes)  # type: ignore[operator]
    red = (moved[..., 0] > 120) & (moved[..., 1] < 80)
    assert 0.8 < grown < 1.2
    for x0, y0, x1, y1 in placed.tolist():
        height, width = moved.shape[:2]
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            continue
        assert red[int((y0 + y1) / 2), int((x0 + x1) / 2)]
        assert red[int(y0) + 1 : int(y1), int(x0) + 1 : int(x1)].mean() > 0.7


@pytest.mark.parametrize("look", [*LOOKS, "mixed"])
def test_looks_are_seeded(page: ReadablePage, look: str) -> None:
    first, second, other = (apply_look(page, look, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)
    assert first.looks == second.looks
    assert first.characters == page.characters
    assert first.questions == page.questions
    if look in ("copy", "fax", "clean"):
        assert (first.image.shape, other.image.shape) == (page.image.shape,) * 2
    if look == "clean":
        assert np.array_equal(first.image, page.image)


def test_unknown_look(page: ReadablePage) -> None:
    with pytest.raises(ConfigError, match="unknown look 'polaroid'"):
        apply_look(page, "polaroid", 0)


def test_the_renderer_takes_no_options() -> None:
    with pytest.raises(ConfigError, match="the renderer takes no x_height"):
        page_source("renderer", "train", x_height=(9.0, 12.0))


def test_slime_pages_writes_scanned_pages(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pages", "-o", str(tmp_path), "-n", "2", "--look", "camera"])
    assert done.exit_code == 0, done.output
    details = json.loads((tmp_path / "renderer-000000.json").read_text())
    with Image.open(tmp_path / "renderer-000000.png") as image:
        assert image.size == (details["width"], details["height"])
    assert len(details["boxes"]) == len(details["characters"]) == len(details["lines"])
    assert len((tmp_path / "pages.jsonl").read_text().splitlines()) == 2


def test_slime_pages_writes_typeset_pages(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    cache = tmp_path / "cache"
    (cache / "r-doc-pdf").mkdir(parents=True)
    write_pdf(
        cache / "r-doc-pdf" / "a.pdf",
        [[(72, 700 - 20 * i, 11, f"{i}. measured answers in zoned rooms") for i in range(9)]],
    )
    entry = {"path": "r-doc-pdf/a.pdf", "package": "r-doc-pdf", "version": "4"}
    (cache / "manifest.json").write_text(json.dumps([entry]))
    arguments = ["pages", "-o", str(tmp_path / "out"), "-n", "1", "--source", "typeset", "--pdfs", str(cache)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "typeset-000000.png").exists()


@pytest.mark.parametrize(
    ("source", "advice"), [("typeset", "fetch_typeset_pdfs"), ("browser", "fetch_fonts"), ("fax", "unknown source")]
)
def test_slime_pages_says_what_is_missing(tmp_path: Path, source: str, advice: str) -> None:
    done = CliRunner().invoke(app, ["pages", "-o", str(tmp_path), "--source", source])
    assert done.exit_code
    assert advice in str(done.exception) + done.output
