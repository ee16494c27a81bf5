"""`slime chat`: questions and commands from a pipe, one line per error, Ctrl-C stops only the answer."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slime_vlm
from slime_vlm.cli import main
from tests.tiny_reader import save_tiny_reader, tiny_reader


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_reader(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def page(tmp_path) -> Path:
    path = tmp_path / "page.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def chat(monkeypatch, capsys, tmp_path, checkpoint):
    """Run `slime chat` on piped lines: exit code, standard output, standard error."""
    monkeypatch.delenv("SLIME_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(lines: str, *arguments: object) -> tuple[int, str, str]:
        settings = ("--model", checkpoint, "--max-new-tokens", 4)
        monkeypatch.setattr(sys, "argv", ["slime", "chat", *map(str, (*arguments, *settings))])
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def test_questions_are_answered_and_drawn(chat, page, tmp_path):
    other = tmp_path / "other page.png"
    Image.new("RGB", (70, 40), "white").save(other)
    lines = f'What is it?\n/show first.png\n/image "{other}"\nAnd this?\n/show\n\n/quit\nnever asked\n'
    code, out, err = chat(lines, page)
    assert (code, err) == (0, "")
    assert "first.png" in out
    assert sorted(path.name for path in tmp_path.glob("*-*.png")) == ["chat-2-1.png", "chat-2-2.png"]
    assert Image.open(tmp_path / "first.png").width >= 300


def test_bad_lines_are_one_line_each_and_end_nothing(chat, page, tmp_path):
    (tmp_path / "text.png").write_text("words")
    lines = "/show\n/image\n/image none.png\n/image text.png\n/nonsense\nwhat <image>?\n"
    lines += "What?\n/show a.xyz\n/show none.png/a.png\n"
    code, out, err = chat(lines, page)
    assert code == 0
    found = err.splitlines()
    expected = ["no answer yet", "expected a file", "no such file", "not an image", "/nonsense", "<image>", ".xyz"]
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert line.startswith("slime: ")
        assert words in line
    assert "none.png/a.png" in out


def test_pages_and_addresses(chat, page, tmp_path):
    frames = [Image.new("L", (40, 60), value) for value in (0, 255)]
    frames[0].save(tmp_path / "scan.gif", save_all=True, append_images=frames[1:])
    lines = "/image scan.gif#2\n/image scan.gif#3\n/image http://127.0.0.1/a.png\nWhat?\n"
    code, out, err = chat(lines, f"{page}#1")
    assert code == 0
    assert "scan.gif#2: " in out
    assert err.splitlines() == [
        "slime: scan.gif: there is no #3, it has 2 pages; ask for #1 to #2",
        "slime: http://127.0.0.1/a.png: this is an address; nothing is downloaded without --allow-url",
    ]
    assert "is not public" in chat("/image http://127.0.0.1/a.png\n", page, "--allow-url")[2]


def test_commands_tell_what_they_do(chat, page):
    code, out, err = chat("/help\nWhat?\n/look\nAnd?\n/reset\nWhat?\n", page, "--look-again")
    assert (code, err) == (0, "")
    for words in ("/image PATH", "includes all images again", "forgotten"):
        assert words in out


@pytest.mark.parametrize("name", ["none.png", "folder"])
def test_bad_images_are_found_before_the_model_is_loaded(chat, tmp_path, name):
    (tmp_path / "folder").mkdir()
    code, out, err = chat("What?\n", tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith("slime: ")
    assert err.count("\n") == 1


def test_ctrl_c_stops_an_answer_and_a_second_one_breaks_it_off(chat, page, monkeypatch):
    model, processor = tiny_reader()
    steps: list[int] = []
    presses = {3: 1, 12: 2}  # at these passes through the language model, so often

    def press(*_: object) -> None:
        steps.append(1)
        for _ in range(presses.get(len(steps), 0)):
            signal.raise_signal(signal.SIGINT)

    model.model.language_model.register_forward_pre_hook(press)
    monkeypatch.setattr(slime_vlm, "load", lambda *_args, **_kwargs: (model, processor))
    before = signal.getsignal(signal.SIGINT)
    code, out, err = chat("first?\nsecond?\nthird?\nfourth?\nfifth?\n", page)
    assert (code, err) == (0, "")
    assert out.count(" …\n") == 1
    assert out.count("aborted") == 1
    assert len(steps) > 12
    assert signal.getsignal(signal.SIGINT) is before
