"""ArxivQA: questions about figures of papers, answered with a rationale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slime_vlm.data.smr.raw_set import RawSet, Skipped, image_exists, read_lines, record


def convert(folder: Path, skipped: Skipped) -> Iterator[dict[str, Any]]:
    """Yield the records. Choices have their letters already. The label is a letter that text may follow."""
    for row in read_lines(folder / "arxivqa.jsonl"):
        letter = re.search(r"[A-Z]", str(row.get("label", "")))
        if letter is None or not row.get("options"):
            skipped["no label or choices"] += 1
            continue
        if image_exists(folder, str(row["image"]), skipped):
            question = "\n".join([str(row["question"]).strip(), *map(str, row["options"])])
            rationale = str(row.get("rationale") or "").strip()
            answer = f"{rationale}\nSo the answer is {letter[0]}.".strip()
            yield record(f"arxivqa-{row['id']}", str(row["image"]), question, answer)


SET = RawSet(
    name="ArxivQA",
    folder="arxivqa",
    licence="CC BY-SA 4.0",
    origin="hub MMInstruction/ArxivQA: arxivqa.jsonl and images.tgz, unpacked",
    files=("arxivqa.jsonl", "images"),
    count=100_000,
    count_source="the paper's share of SMR, rounded",
    convert=convert,
)
