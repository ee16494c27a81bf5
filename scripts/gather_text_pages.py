"""Gather the text of pages of one source, for `train_words.py`: characters with boxes, and questions, without pixels.

With a reader the text is what it reads of the pages' pixels, misread characters and all.

    python scripts/fetch_fonts.py runs/fonts
    python scripts/gather_text_pages.py runs/browser.jsonl.gz --source browser --fonts runs/fonts --count 480 \
        --questions 16
    python scripts/gather_text_pages.py runs/browser-read.jsonl.gz --source browser --fonts runs/fonts --count 240 \
        --reader runs/recogniser runs/reader/reader.safetensors --looks 0.5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file
from transformers import AutoModel

from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.scan_look import apply_look
from slime_vlm.pages.text_page import TextPage, text_of, write_text_pages
from slime_vlm.pages.writing_readable import SOURCES, page_source
from slime_vlm.training.pages.character_cells import CHARACTERS
from slime_vlm.training.pages.reading import PageReader, labelled_tiles, read_page
from slime_vlm.training.pages.words.readings import read_text

VIEW, CELL, PLACE, MAX_TILES = 304, 24, 4, 64


def reading(encoder: Path, weights: Path) -> Callable[[ReadablePage], TextPage]:
    """Return a function that reads a page."""
    read = {name: value.float() for name, value in load_file(weights).items()}
    blocks = {name.split(".")[2] for name in read if name.startswith("local_compressor.context.")}
    reader = PageReader(AutoModel.from_pretrained(encoder, image_size=VIEW), context=len(blocks))
    reader.load_state_dict(read)
    reader.eval()

    def read_one(page: ReadablePage) -> TextPage:
        tiles = labelled_tiles(page, view_size=VIEW, max_tiles=MAX_TILES, cell=CELL, place=PLACE)
        named = read_page(reader, tiles, whole=True).as_printed(CHARACTERS)
        return read_text(page, named, tiles.at, CELL, PLACE, tiles.cells.rows)

    return read_one


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", choices=SOURCES, default="browser")
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--pdfs", type=Path, help="folder that fetch_typeset_pdfs.py wrote")
    parser.add_argument("--fonts", type=Path, help="folder that fetch_fonts.py wrote")
    parser.add_argument("--cache", type=Path, help="folder of printed documents")
    parser.add_argument("--reader", type=Path, nargs=2, help="encoder folder and reader.safetensors: read the pixels")
    parser.add_argument("--looks", type=float, default=0.0, help="share of pages that look scanned, for a reader")
    parser.add_argument("--questions", type=int, default=8, help="most questions a typeset or browser-laid page")
    parser.add_argument(
        "--rare", type=float, help="how often to ask browser-laid pages' rare families; 1.7 for training, 1 otherwise"
    )
    parser.add_argument("--longest", type=int, help="leave out pages of more characters, which take long to train on")
    parser.add_argument("--templates", nargs="+", help="only these templates of browser-laid pages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=480)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if options.templates and options.source != "browser":
        parser.error(f"--templates goes with --source browser, not with {options.source}")
    torch.set_num_threads(options.threads)
    asked: dict[str, Any] = {} if options.source == "renderer" else {"questions": options.questions}
    if options.source == "browser":
        usual = 1.7 if options.split == "train" else 1.0
        asked["rare"] = usual if options.rare is None else options.rare
        asked["templates"] = tuple(options.templates or ())
    folders = {"pdfs": options.pdfs, "fonts": options.fonts, "cache": options.cache}
    make = page_source(options.source, options.split, **folders, **asked)
    text = reading(*options.reader) if options.reader else text_of

    def page(seed: int) -> TextPage:
        drawn = make(seed)
        looks = np.random.default_rng([seed, 1]).random() < options.looks
        return text(apply_look(drawn, "mixed", seed) if looks else drawn)

    seeds = range(options.seed, options.seed + options.count)
    pages = (page(seed) for seed in track(seeds, "pages"))
    count = write_text_pages(
        options.out, (one for one in pages if options.longest is None or len(one.characters) <= options.longest)
    )
    print(f"{count} pages in {options.out}")  # noqa: T201


if __name__ == "__main__":
    main()
