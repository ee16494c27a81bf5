"""Write submission files for the servers that score hidden answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from slime_vlm.evaluation.benchmarks import Question, Submission
from slime_vlm.evaluation.predictions import Row


def write_submission(
    submission: Submission, rows: Sequence[Row], folder: Path, everything: Iterable[Question] = ()
) -> Path:
    """Write a submission in the server's format, and return its path.

    Args:
        submission: The format.
        rows: The predictions.
        folder: Folder to write to.
        everything: All questions of the split, if the server wants an entry for each of them.
    """
    answered = {str(row["id"]) for row in rows}
    entries = [submission.entry(row["prediction"], row["target"]) for row in rows]
    entries += [submission.entry("", question.target) for question in everything if question.id not in answered]
    path = folder / submission.name
    if path.suffix == ".xlsx":
        _write_sheet(path, entries)
    else:
        path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


def _write_sheet(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    import openpyxl
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(list(entries[0]) if entries else [])
    for entry in entries:
        sheet.append([ILLEGAL_CHARACTERS_RE.sub("", v) if isinstance(v, str) else v for v in entry.values()])
    book.save(path)
