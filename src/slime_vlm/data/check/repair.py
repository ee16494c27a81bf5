"""Write a cleaned copy of a source: repair what needs no guessing, and leave the rest out."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from slime_vlm.data.check.record_checks import RecordChecker
from slime_vlm.data.check.report import SourceReport
from slime_vlm.data.check.running import processor_of
from slime_vlm.data.images import stored_bytes
from slime_vlm.data.record import Record
from slime_vlm.data.source import Source
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER, PLACEHOLDERS

# Findings that no change of the text repairs.
_BEYOND_REPAIR = {"unreadable", "missing-image", "damaged-image", "small-image", "duplicate"}

REPAIRED = "repaired"
COPIED = "copied"


def check_target(out: Path) -> None:
    """Check, before hours of checking records, that the copy can be written.

    Raises:
        ConfigError: The file exists already, or its name does not end in .jsonl.
    """
    if out.suffix != ".jsonl":
        raise ConfigError(f"--fix {out}: expected the name of a JSONL file, such as clean.jsonl")
    if out.exists():
        raise ConfigError(f"--fix {out} exists already, and nothing is ever overwritten; choose another name")


def write_repaired(
    source: Source,
    report: SourceReport,
    out: Path,
    model: str | None = None,
    max_length: int = 2048,
    allowed: Collection[str] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Counter[str]:
    """Write a copy in which `check_source` finds nothing.

    An answer before the first question is removed, and so is a last question without an answer. The placeholder of a
    single image moves to the front of the first question. A second record with the same id but other content gets a
    new id. Records with remaining findings are left out.

    Args:
        source: The records.
        report: What `check_source` found in them.
        out: A JSONL file that does not exist yet. Paths of images are kept. Images that are stored in the records
            become base64 text.
        model: As for `check_source`.
        max_length: As for `check_source`.
        allowed: Kinds of findings that are kept as they are. Records that training refuses are left out all the same.
        advance: Called with the number of records that were just written.

    Returns:
        How many records were `copied`, `repaired`, or left out. The last are counted by kind of finding.

    Raises:
        ConfigError: `out` exists already, or its name does not end in .jsonl.
    """
    check_target(out)
    checker = RecordChecker(source, processor_of(model) if model is not None else None, max_length)
    wrong = {
        index: [finding.kind for finding in findings if finding.refused or finding.kind not in allowed]
        for index, findings in report.by_record().items()
    }
    done, taken = Counter[str](), set(report.ids)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8") as file:
            for index in range(len(source)):
                kinds = wrong.get(index, [])
                record = _repaired(checker, index, kinds, report.sizes.get(index, []), taken, allowed)
                advance(1)
                if record is None:
                    done[kinds[0]] += 1
                    continue
                done[REPAIRED if kinds else COPIED] += 1
                plain = replace(record, images=[_as_text(value) for value in record.images]).as_dict()
                file.write(json.dumps(plain, ensure_ascii=False) + "\n")
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return done


def _repaired(
    checker: RecordChecker,
    index: int,
    kinds: Collection[str],
    sizes: list[tuple[int, int]],
    taken: set[str | int],
    allowed: Collection[str],
) -> Record | None:
    """Return the repaired record, or None if it has to be left out."""
    if _BEYOND_REPAIR & set(kinds):
        return None
    try:
        record = checker.source[index]
    except DataError:
        return None
    if not kinds:
        return record
    record = replace(record, conversations=_with_placeholders(_whole_rounds(record.conversations), len(record.images)))
    if any(problem.refused or problem.kind not in allowed for problem in checker.text_problems(record, sizes)):
        return None
    if "duplicate-id" in kinds:
        number = next(number for number in count(2) if f"{record.id}-{number}" not in taken)
        record = replace(record, id=f"{record.id}-{number}")
        taken.add(f"{record.id}")
    return record


def _whole_rounds(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Remove turns before the first question, and a last question that has no answer."""
    first = next((index for index, turn in enumerate(turns) if turn["from"] == "human"), 0)
    last = len(turns) - (turns[-1]["from"] == "human")
    return [turn for index, turn in enumerate(turns[:last]) if index >= first or turn["from"] == "system"]


def _with_placeholders(turns: list[dict[str, str]], images: int) -> list[dict[str, str]]:
    """Put the placeholder of a single image before the first question, if the number of placeholders was wrong."""
    asked = [index for index, turn in enumerate(turns) if turn["from"] == "human"]
    found = sum(len(PLACEHOLDERS.findall(turns[index]["value"])) for index in asked)
    if images != 1 or found == 1 or not asked:
        return turns
    changed = list(turns)
    for index in asked:
        text = PLACEHOLDERS.sub("", turns[index]["value"]).strip()
        changed[index] = {
            "from": "human",
            "value": f"{IMAGE_PLACEHOLDER}\n{text}".strip() if index == asked[0] else text,
        }
    return changed


def _as_text(value: Any) -> Any:
    """Return an image in a form that JSON can hold."""
    content = stored_bytes(value)
    if content is not None:
        return "data:application/octet-stream;base64," + base64.b64encode(content).decode("ascii")
    return value["path"] if isinstance(value, dict) else value
