"""Every format of records becomes the published one, with the images in the order of their placeholders."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.data.record import read_record
from slime_vlm.errors import DataError
from tests.data.writing import make_image, turns

PNG = "data:image/png;base64," + base64.b64encode(make_image("red")).decode()


def text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def said(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]


CASES: dict[str, tuple[dict[str, Any], list[Any], list[dict[str, str]]]] = {
    "llava": ({"image": "a.png", "conversations": turns("<image>\n?", "!")}, ["a.png"], turns("<image>\n?", "!")),
    "capitalised roles": (
        {"conversations": [{"from": "Human", "value": "?"}, {"from": " GPT", "value": "!"}]},
        [],
        turns("?", "!"),
    ),
    "capitalised roles of messages": (
        {"messages": [{"role": "USER", "content": "?"}, {"role": "Assistant", "content": "!"}]},
        [],
        turns("?", "!"),
    ),
    "messages as text": (
        {"images": ["a.png", "b.png"], "messages": said("<image><image>?", "!")},
        ["a.png", "b.png"],
        turns("<image><image>?", "!"),
    ),
    "messages, images not mentioned": (
        {"images": ["a.png"], "messages": said("?", "!")},
        ["a.png"],
        turns("<image>\n?", "!"),
    ),
    "blocks that take listed images": (
        {"images": ["a.png"], "messages": said([{"type": "image"}, text("?")], [text("!")])},
        ["a.png"],
        turns("<image>?", "!"),
    ),
    "blocks with images inside": (
        {
            "messages": said(
                [{"type": "image", "image": "a.png"}, text("and "), {"type": "image", "image": {"path": "b.png"}}],
                "!",
                [text("this? "), {"type": "image_url", "image_url": {"url": PNG}}],
                "?",
            )
        },
        ["a.png", "b.png", PNG],
        turns("<image>and <image>", "!", "this? <image>", "?"),
    ),
    "blocks of several kinds": (
        {
            "images": [{"bytes": b"listed", "path": None}],
            "messages": said(
                [
                    {"type": "image", "url": "file://a.png", "text": None},
                    {"type": "image_url", "image_url": "b.png"},
                    {"type": "image", "image": {"bytes": b"inside", "path": "x.png"}},
                    {"type": "image", "image": None},
                    {"text": "C:\\"},
                    {"image": "c.png"},
                ],
                "!",
            ),
        },
        ["a.png", "b.png", b"inside", b"listed", "c.png"],
        # The line break keeps the backslash from making the placeholder a word.
        turns("<image><image><image><image>C:\\\n<image>", "!"),
    ),
    "ms-swift": (
        {"query": "<image>Q2", "response": "A2", "history": [["Q1", "A1"]], "images": ["a.png"], "system": "S"},
        ["a.png"],
        [{"from": "system", "value": "S"}, *turns("Q1", "A1", "<image>Q2", "A2")],
    ),
    "ms-swift, the image not mentioned": (
        {"query": "Q2", "response": "A2", "history": [["Q1", "A1"]], "images": "a.png"},
        ["a.png"],
        turns("<image>\nQ1", "A1", "Q2", "A2"),
    ),
    "ms-swift, text alone": ({"query": "Q", "response": "A", "history": None}, [], turns("Q", "A")),
    "alpaca": ({"instruction": "Add.", "input": "1, 2", "output": "3"}, [], turns("Add.\n1, 2", "3")),
    "alpaca without input": (
        {"instruction": "Name it.", "input": "", "output": "Red.", "image": "a.png"},
        ["a.png"],
        turns("<image>\nName it.", "Red."),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_format_becomes_the_published_one(name: str) -> None:
    raw, images, conversations = CASES[name]
    record = read_record({"id": 7, **raw, "kind": "mine"})
    assert (record.id, record.images, record.conversations) == (7, images, conversations)
    assert record.rest == {"kind": "mine"}


def test_the_examples_of_the_guide() -> None:
    guide = Path(__file__).parents[2] / "docs" / "fine_tuning.md"
    examples = re.findall(r"```json\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    records = [read_record(json.loads(example)) for example in examples]
    assert [record.images for record in records] == [["a.png"]] * 5
    assert [record.conversations[-1]["value"] for record in records] == ["47.20", "47.20", "47.20", "7.54", "47.20"]


def test_keys_of_other_formats_are_kept() -> None:
    record = read_record({"conversations": turns("?", "!"), "output": "S", "input": 1})
    assert record.as_dict() == {"conversations": turns("?", "!"), "output": "S", "input": 1}


@pytest.mark.parametrize("raw", [{"conversations": turns("?", "!")}, {"messages": said("?", "!")}])
def test_a_system_text_beside_the_turns_is_learnt(raw: dict[str, Any]) -> None:
    """ShareGPT and Anthropic keep it there."""
    record = read_record({**raw, "system": "Be brief."})
    assert record.conversations == [{"from": "system", "value": "Be brief."}, *turns("?", "!")]
    assert "system" not in record.rest
    assert read_record({**raw, "system": ""}).conversations == turns("?", "!")
    assert read_record({**raw, "system": None}).conversations == turns("?", "!")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"text": "a"}, "no 'conversations', 'messages', 'query' or 'instruction'"),
        ({"query": "a"}, "the record has no 'response'"),
        ({"response": "a"}, "the record has no 'query'"),
        ({"instruction": "a", "output": ["b"]}, r"'output' is \['b'\], expected text"),
        ({"query": "a", "response": "b", "history": {"a": "b"}}, "'history' is .*, expected a list of pairs"),
        ({"query": "a", "response": "b", "history": [["a"]]}, r"round 0 of 'history' is \['a'\]"),
        ({"messages": said([{"type": "video"}], "b")}, "turn 0 has the content block .*'video'"),
        ({"messages": said([3], "b")}, "turn 0 has the content block 3"),
        ({"messages": said([{"type": "text", "text": 3}], "b")}, "turn 0 has the content block"),
        ({"messages": said([{"type": "image"}], "b")}, r"mention 1 image\(s\), found 0"),
        ({"messages": said([{"type": "image"}], "b"), "images": ["a", "b"]}, r"mention 1 image\(s\), found 2"),
        ({"conversations": turns("<video>a", "b"), "video": "a.mp4"}, "the record has 'video', expected images"),
        ({"query": "a", "response": "b", "videos": ["a.mp4"]}, "the record has 'videos', expected images"),
        ({"conversations": turns("<image>", "b"), "image": "a.png", "images": ["a.png", "b.png"]}, "both 'image' and"),
        ({"conversations": turns("a", "b"), "system": ["S"]}, r"'system' is \['S'\], expected text"),
        (
            {"conversations": [{"from": "system", "value": "S"}, *turns("a", "b")], "system": "T"},
            "the record has 'system' and a system turn in 'conversations', expected one",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "turn 0 is .*, expected 'from'"),
        ({"conversations": turns("a", "b"), "rest": {"deep": ["\ud800"]}}, "the record holds '\\\\ud800', half of"),
    ],
)
def test_what_has_no_format(raw: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        read_record(raw)
    assert "\n" not in str(caught.value)


def test_a_value_of_any_depth_is_shown_in_short() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for raw in (deep, {"conversations": deep}, {"query": deep, "response": "a"}, {"messages": said(deep, "a")}):
        with pytest.raises(DataError) as caught:
            read_record(raw)
        assert len(str(caught.value)) < 250
    with pytest.raises(DataError, match="nested more than 64 levels deep"):
        read_record({"conversations": turns("a", "b"), "more": deep})
    # Freed level by level: the interpreter would free it by recursion.
    while deep:
        deep = deep[0]
