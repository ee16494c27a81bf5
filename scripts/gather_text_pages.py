"""Gather the text of pages of one source, for `train_words.py`: characters with boxes, and questions, without pixels.

python scripts/fetch_fonts.py runs/fonts
python scripts/gather_text_pages.py runs/browser.jsonl.gz --source browser --fonts runs/fonts --count 480
"""

from __future__ import annotations

import argparse
from pathlib import Path

from slime_vlm.pages.text_page import text_of, write_text_pages
from slime_vlm.pages.writing_readable import SOURCES, page_source


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", choices=SOURCES, default="browser")
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--pdfs", type=Path, help="folder that fetch_typeset_pdfs.py wrote")
    parser.add_argument("--fonts", type=Path, help="folder that fetch_fonts.py wrote")
    parser.add_argument("--cache", type=Path, help="folder of printed documents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=480)
    options = parser.parse_args()
    make = page_source(options.source, options.split, pdfs=options.pdfs, fonts=options.fonts, cache=options.cache)
    pages = (text_of(make(seed)) for seed in range(options.seed, options.seed + options.count))
    print(f"{write_text_pages(options.out, pages)} pages in {options.out}")  # noqa: T201


if __name__ == "__main__":
    main()
