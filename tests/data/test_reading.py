"""`slime data check` accepts a record if and only if training reads it, whatever the damage."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.data import RecordDataset, open_source
from slime_vlm.data.check import check_source, write_repaired
from slime_vlm.data.check.record_checks import RecordChecker
from slime_vlm.data.source import Source
from slime_vlm.errors import DataError
from slime_vlm.training.records import RecordCollator
from tests.data.test_record_formats import PNG, said, text
from tests.data.writing import make_image, turns, write_lines
from tests.tiny_reader import tiny_reader

GOOD: list[dict[str, Any]] = [
    {"id": "llava", "image": "a.png", "conversations": turns("<image>\nWhich colour?", "red", "Sure?", "yes")},
    {"id": "two", "image": ["a.png", "b.png"], "conversations": turns("<image><image>Same?", "no")},
    {"id": "text", "conversations": [{"from": "System", "value": "Be brief."}, *turns("1 + 1?", "2")]},
    {"id": "messages", "images": ["a.png"], "messages": said("<image>Which?", "red")},
    {
        "id": "blocks",
        "messages": said(
            [{"type": "image", "image": {"path": "a.png"}}, text("or "), {"type": "image", "image": "b.png"}],
            [text("the first")],
            [{"type": "image_url", "image_url": {"url": PNG}}, text("?")],
            "red",
        ),
    },
    {"id": "listed", "images": ["a.png"], "messages": said([{"type": "image"}, text("Which?")], "red")},
    {"id": "swift", "query": "<image>Q", "response": "A", "history": [["q", "a"]], "images": ["b.png"], "system": "S"},
    {"id": "alpaca", "instruction": "Which colour?", "input": "now", "output": "red", "image": "b.png"},
]

STRANGE: list[Any] = [
    None,
    "",
    " ",
    True,
    0,
    -1.5,
    10**30,
    1e400,
    [],
    {},
    [None],
    [[]],
    {"a": {"b": []}},
    "<image>",
    "\\<image>",
    "<im<image>age>",
    "\x00\x1b[31m\u202e\x07",
    "\ud800",
    "x" * 5_000,
    "A" * 100,
    "data:,",
    "data:image/png;base64,\u00e9",
    "..",
    "/etc/passwd",
    "a.png/b.png",
    "broken.zip/a.png",
    "https://example.org/a.png",
    "folder\\a.png",
    "broken.png",
    "Human",
    "GPT",
    "gpt",
    "system",
    "tool",
    "<s>[INST]</s>",
    {"bytes": "no base64", "path": None},
    {"path": ["a.png"]},
    {"type": "image"},
    {"type": "text"},
]


def nested(depth: int) -> Any:
    value: Any = "end"
    for number in range(depth):
        value = [value] if number % 2 else {"value": value}
    return value


def slots(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """All (container, key) pairs of a record."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found.append((value, key))
        if isinstance(inner, dict | list):
            slots(inner, found)
    return found


def damaged(rng: random.Random) -> dict[str, Any]:
    """A good record with one to three random changes."""
    record: dict[str, Any] = copy.deepcopy(rng.choice(GOOD))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = slots(record, [])
        if not found:
            break
        container, key = rng.choice(found)
        other = rng.choice(found)
        change = rng.choice(
            ["delete", "replace", "replace", "replace", "repeat", "swap", "deep", "key", "append", "case"]
        )
        if change == "delete":
            del container[key]
        elif change == "replace":
            container[key] = copy.deepcopy(rng.choice(STRANGE))
        elif change == "repeat" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif change == "swap":
            container[key] = copy.deepcopy(other[0][other[1]])
        elif change == "deep":
            container[key] = nested(rng.choice([3, 70, 400]))
        elif change == "key" and isinstance(container, dict):
            container[rng.choice(["image", "images", "from", "role", "content", "query", "id"])] = container.pop(key)
        elif change == "append" and isinstance(container[key], str):
            container[key] += rng.choice(["<image>", "\\", "\n\n", "</s>", "\x00", "\u00e9\U0001f600", "\udfff"])
        elif change == "case" and isinstance(container[key], str):
            container[key] = container[key].upper()
    return record


def lines(count: int) -> list[str]:
    rng = random.Random(17)
    written = [json.dumps(record) for record in GOOD]
    for number in range(count):
        line = json.dumps(damaged(rng))
        # Some lines are damaged as text.
        cut = rng.randrange(len(line))
        written.append(
            line[:cut] if number % 40 == 0 else line[:cut] + "\x01" + line[cut:] if number % 41 == 0 else line
        )
    return written


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(make_image("red", 8, 9))
    (tmp_path / "b.png").write_bytes(make_image("blue", 9, 8))
    (tmp_path / "broken.png").write_bytes(make_image("blue")[:40])
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no archive")
    return tmp_path


def training_reads(collator: RecordCollator, index: int) -> bool:
    batch = collator([index])
    assert ("input_ids" in batch) == (batch["bad_records"] == [])
    for bad in batch["bad_records"]:
        assert "\n" not in bad.reason
        # What goes to files and consoles can be written there.
        bad.reason.encode("utf-8")
    return "input_ids" in batch


@pytest.mark.parametrize("style", [None, "plain"])
def test_the_check_accepts_what_training_reads(images: Path, style: str | None) -> None:
    path = images / "records.jsonl"
    path.write_text("\n".join(lines(640)) + "\n", encoding="utf-8")
    source = open_source(path)
    _, processor = tiny_reader()
    collator = RecordCollator(RecordDataset(source), processor, style, max_length=64)
    reads = [training_reads(collator, index) for index in range(len(source))]
    assert all(reads[: len(GOOD)])
    for model in (None, processor):
        checker = RecordChecker(source, model)
        checked = [checker.check(index) for index in range(len(source))]
        wrong = [index for index, found in enumerate(checked) if found.usable != reads[index]]
        assert wrong == []
    # The damage is of every kind, and much of it is harmless.
    assert 0.15 < sum(reads) / len(reads) < 0.6
    kinds = Counter(finding.kind for found in checked for finding in found.findings if finding.refused)
    assert {"unreadable", "turn-order", "placeholders", "missing-image", "damaged-image"} <= set(kinds)
    assert min(kinds.values()) >= 5


def test_report_and_copy_of_damaged_records(images: Path) -> None:
    path = images / "records.jsonl"
    path.write_text("\n".join(lines(640)) + "\n", encoding="utf-8")
    source = open_source(path)
    report = check_source(source)
    plain = json.dumps(report.as_dict(), ensure_ascii=False).encode("utf-8")
    assert len(json.loads(plain)["findings"]) >= report.refused > 100
    # A copy holds no record that training refuses, whatever is allowed.
    allowed = {finding.kind for finding in report.findings}
    write_repaired(source, report, images / "copy.jsonl", allowed=allowed)
    copied = open_source(images / "copy.jsonl")
    assert len(copied) >= len(source) - report.refused
    assert check_source(copied).refused == 0


class InMemory(Source):
    """Records that JSON cannot hold, as in Parquet files."""

    def __init__(self, records: list[Any], images: Path) -> None:
        super().__init__("memory", images)
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Any:
        return self.records[index]


def test_bytes_in_records(images: Path) -> None:
    content = make_image("red")
    asked = turns("<image>?", "red")
    records: list[Any] = [
        {"image": content, "conversations": asked},
        {"image": {"bytes": bytearray(content), "path": "x"}, "conversations": asked},
        {"messages": said([{"type": "image", "image": content}, text("?")], "red")},
        {"image": b"", "conversations": asked},
        {"image": content[:50], "conversations": asked},
        {"conversations": [{"from": b"human", "value": "?"}]},
        {"conversations": [*turns("?"), {"from": "gpt", "value": b"!"}]},
        {b"conversations": asked},
    ]
    source = InMemory(records, images)
    _, processor = tiny_reader()
    collator = RecordCollator(RecordDataset(source), processor)
    checker = RecordChecker(source)
    reads = [training_reads(collator, index) for index in range(len(records))]
    assert reads == [checker.check(index).usable for index in range(len(records))] == [True] * 3 + [False] * 5


TOLERATED = [
    ("turn-order", {"conversations": [{"from": "gpt", "value": "b"}, *turns("a", "b")]}),
    ("turn-order", {"conversations": turns("a", "b", "c")}),
    ("placeholders", {"image": "a.png", "conversations": turns("<image> <image>", "b")}),
    ("empty-answer", {"conversations": turns("a", " ")}),
]


@pytest.mark.parametrize(("kind", "raw"), TOLERATED)
def test_a_likely_mistake_is_reported_and_read(images: Path, kind: str, raw: dict[str, Any]) -> None:
    source = open_source(write_lines(images / "a.jsonl", [raw]))
    (finding,) = check_source(source).findings
    assert (finding.kind, finding.refused) == (kind, False)
    assert RecordDataset(source)[0]["conversations"] == raw["conversations"]


REFUSED = [
    ("placeholders", "a", "<image>", "is in an answer"),
    ("placeholders", "<im<image>age>", "b", "or a word"),
    ("placeholders", "<image>", "<image>", "is in an answer"),
    ("placeholders", "a", "b", "0 image placeholder"),
]


@pytest.mark.parametrize(("kind", "question", "answer", "expected"), REFUSED)
def test_a_placeholder_out_of_its_place_is_refused(
    images: Path, kind: str, question: str, answer: str, expected: str
) -> None:
    raw = {"id": "x", "image": "a.png", "conversations": turns(question, answer)}
    source = open_source(write_lines(images / "a.jsonl", [raw]))
    (finding,) = check_source(source).findings
    assert (finding.kind, finding.refused) == (kind, True)
    with pytest.raises(DataError, match=rf"a\.jsonl: record 'x': .*{expected}"):
        RecordDataset(source)[0]


@pytest.mark.parametrize("labels", ["answers", "published"])
def test_an_escaped_placeholder_is_read_with_every_rule_of_labels(images: Path, labels: str) -> None:
    system = {"from": "system", "value": "\\<image> is a word."}
    asked = turns("<image>What is \\<image>?", "the word \\<image>")
    raw = {"image": "a.png", "conversations": [system, *asked]}
    source = open_source(write_lines(images / "a.jsonl", [raw]))
    _, processor = tiny_reader()
    assert training_reads(RecordCollator(RecordDataset(source), processor, labels=labels), 0)
    assert check_source(source).findings == []
