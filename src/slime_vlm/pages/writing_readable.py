"""Writes readable pages of any source to a folder, to look at and to train or evaluate on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.errors import ConfigError
from slime_vlm.pages.making import make_page
from slime_vlm.pages.readable import ReadablePage, readable
from slime_vlm.pages.scan_look import apply_look
from slime_vlm.pages.settings import PageSettings

SOURCES = ("renderer", "typeset", "browser")


def page_source(
    source: str,
    split: str,
    *,
    pdfs: Path | None = None,
    fonts: Path | None = None,
    cache: Path | None = None,
    **options: Any,
) -> Callable[[int], ReadablePage]:
    """Return a function from seeds to pages.

    Args:
        source: "renderer", "typeset" or "browser".
        split: "train" or "heldout".
        pdfs: Folder of `scripts/fetch_typeset_pdfs.py`, for typeset pages.
        fonts: Folder of `scripts/fetch_fonts.py`, for browser-laid pages; its word list serves typeset ones, too.
        cache: Folder for printed documents, for browser-laid pages; "printed" beside the fonts without it.
        **options: `x_height`, `max_side` and `questions` of typeset and browser-laid pages, `rare` of browser-laid
            ones, see there.

    Raises:
        ConfigError: An unknown source, a folder that the source needs is not given, or the renderer is given options.
    """
    if source == "renderer":
        if options:
            raise ConfigError(f"pages: the renderer takes no {' or '.join(options)}; leave out, or take another source")
        settings = PageSettings(split=split)
        return lambda seed: readable(make_page(seed, settings))
    if source == "typeset":
        from slime_vlm.pages.typeset import TypesetPages

        if pdfs is None:
            raise ConfigError(
                "pages: no folder of PDFs; run scripts/fetch_typeset_pdfs.py FOLDER and give --pdfs FOLDER"
            )
        words = None if fonts is None else fonts / "wamerican/usr/share/dict/american-english"
        return TypesetPages(pdfs, split, words=words, **options).page
    if source == "browser":
        from slime_vlm.pages.browser import BrowserPages

        if fonts is None:
            raise ConfigError("pages: no folder of fonts; run scripts/fetch_fonts.py FOLDER and give --fonts FOLDER")
        return BrowserPages(fonts, cache or fonts / "printed", split, **options).page
    raise ConfigError(f"pages: unknown source {source!r}, expected one of {', '.join(SOURCES)}")


def readable_record(page: ReadablePage, name: str) -> dict[str, Any]:
    """The published conversation record of a page; the image is named once, before the first question."""
    turns = []
    for i, question in enumerate(page.questions):
        turns.append({"from": "human", "value": ("<image>\n" if i == 0 else "") + question.text})
        turns.append({"from": "gpt", "value": question.answer})
    return {"id": name, "image": f"{name}.png", "conversations": turns}


def readable_details(page: ReadablePage, name: str) -> dict[str, Any]:
    """What is known of a page: its lines with the box of each character, and where questions and answers stand."""
    return {
        "id": name,
        "height": page.image.shape[0],
        "width": page.image.shape[1],
        "source": page.source,
        "template": page.template,
        "split": page.split,
        "seed": page.seed,
        "x_height": round(page.x_height, 2),
        "looks": page.looks,
        "characters": page.characters,
        "lines": page.lines.tolist(),
        "boxes": np.round(page.boxes.astype(float), 1).tolist(),
        "questions": [
            {
                "text": question.text,
                "answer": question.answer,
                "family": question.family,
                "wording": question.wording,
                "key": question.key.tolist(),
                "value": question.value.tolist(),
            }
            for question in page.questions
        ],
    }


def write_readable_pages(
    out: Path | str, count: int, seed: int, make: Callable[[int], ReadablePage], look: str = "clean"
) -> Path:
    """Write pages of consecutive seeds: PNG files, `pages.jsonl` of conversations, and one JSON of details each.

    Returns:
        Path of `pages.jsonl`.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "pages.jsonl"
    with target.open("w", encoding="utf-8") as records:
        for i in range(seed, seed + count):
            page = apply_look(make(i), look, i)
            name = f"{page.source}-{i:06d}"
            Image.fromarray(page.image).save(folder / f"{name}.png")
            (folder / f"{name}.json").write_text(json.dumps(readable_details(page, name)) + "\n", encoding="utf-8")
            if page.questions:
                records.write(json.dumps(readable_record(page, name)) + "\n")
    return target
