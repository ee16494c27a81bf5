"""Texts of others cannot command a terminal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from slime_vlm.cli import main
from slime_vlm.cli.terminal import shown, write
from slime_vlm.errors import printable

HOSTILE = "a\x1b[2J\x9b1m\r\x7f\udc80b\tü\n"


def test_control_characters_are_escaped() -> None:
    assert printable(HOSTILE) == "a\\x1b[2J\\x9b1m\\r\\x7f\\udc80b\tü\n"
    assert printable("日本 😀 \u200f") == "日本 😀 \u200f"


def test_answers_on_a_terminal_and_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        write("a\x1b[2Jb")
        terminal.flush()
        assert os.read(ours, 100) == b"a\\x1b[2Jb"
    os.close(ours)
    with (tmp_path / "answers.txt").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert shown("a\x1b[2Jb") == "a\x1b[2Jb"


def test_the_name_of_a_missing_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["slime", "ask", "a\x1b[31m.png", "-q", "What?"])
    with pytest.raises(SystemExit):
        main()
    err = capsys.readouterr().err
    assert "a\\x1b[31m.png" in err
    assert "\x1b" not in err


def test_findings_about_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    record = {"id": 1, "image": "no\x1b[31m.png", "conversations": turns}
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    monkeypatch.setattr(sys, "argv", ["slime", "data", "check", str(tmp_path / "records.jsonl")])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr().out
    assert end.value.code == 1
    assert "no\\x1b[31m.png" in out
    assert "\x1b[31m" not in out


def test_images_over_the_memory_of_a_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    (tmp_path / "records.jsonl").write_text(json.dumps({"id": 1, "image": "a.png", "conversations": turns}) + "\n")
    monkeypatch.setenv("COLUMNS", "200")
    for arguments, code in (([], 0), (["--max-memory", "1"], 1), (["--max-memory", "1", "--workers", "2"], 1)):
        monkeypatch.setattr(sys, "argv", ["slime", "data", "check", str(tmp_path / "records.jsonl"), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out = capsys.readouterr().out
        assert (end.value.code or 0) == code, out
        assert ("the limit is 1 MB" in out) is bool(code)
