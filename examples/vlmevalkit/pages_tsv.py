"""Writes rendered pages as a table of VLMEvalKit, a question a row with its page in base64.

slime pages --out pages -n 8 --kind form --kind invoice --split heldout
python pages_tsv.py pages LMUData/SlimePages.tsv
"""

from __future__ import annotations

import base64
import csv
import json
import sys
from pathlib import Path

COLUMNS = ("index", "image", "question", "answer")


def write_table(pages: Path, table: Path) -> None:
    """Takes the conversations of `pages/pages.jsonl` apart: columns `index`, `image`, `question` and `answer`."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(COLUMNS)
        index = 0
        for line in (pages / "pages.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
            # Further questions about a page name the row that has it.
            image = base64.b64encode((pages / record["image"]).read_bytes()).decode()
            for question, answer in zip(texts[::2], texts[1::2], strict=True):
                rows.writerow([index, image, question, answer])
                image, index = image if len(image) <= 64 else str(index), index + 1


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), Path(sys.argv[2]))
