"""Write pages to a folder, as conversation records that can be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.pages.making import make_page
from slime_vlm.pages.page import Page
from slime_vlm.pages.render import render
from slime_vlm.pages.settings import PageSettings


def page_record(page: Page, name: str) -> dict[str, Any]:
    """Return the conversation record of a page. The image marker is before the first question."""
    turns = []
    for i, question in enumerate(page.questions):
        turns.append({"from": "human", "value": ("<image>\n" if i == 0 else "") + question.text})
        turns.append({"from": "gpt", "value": question.answer})
    return {"id": name, "image": f"{name}.png", "conversations": turns}


def page_boxes(page: Page, name: str) -> dict[str, Any]:
    """Return the exact boxes of a page: every run with the box of each character, and the runs of each answer."""
    return {
        "id": name,
        "height": page.height,
        "width": page.width,
        "kind": page.kind,
        "split": page.split,
        "seed": page.seed,
        "layout": page.layout,
        "runs": [
            {"text": r.text, "role": r.role, "words": r.words, "boxes": np.round(r.boxes.astype(float), 1).tolist()}
            for r in page.runs
        ],
        "questions": [{"key_runs": q.key_runs, "value_runs": q.value_runs} for q in page.questions],
    }


def write_pages(out: Path | str, count: int, seed: int, settings: PageSettings) -> Path:
    """Write `count` pages of consecutive seeds as PNG files, with `pages.jsonl` and `boxes.jsonl` beside them.

    `pages.jsonl` holds one conversation record per line, `boxes.jsonl` the exact boxes of the same pages.

    Returns:
        Path of `pages.jsonl`.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "pages.jsonl"
    with target.open("w", encoding="utf-8") as records, (folder / "boxes.jsonl").open("w", encoding="utf-8") as boxes:
        for i in range(seed, seed + count):
            page = make_page(i, settings)
            name = f"{page.kind}-{i:06d}"
            Image.fromarray(render(page)).save(folder / f"{name}.png")
            records.write(json.dumps(page_record(page, name)) + "\n")
            boxes.write(json.dumps(page_boxes(page, name)) + "\n")
    return target
