"""Letters beyond Latin are drawn with an installed font that has them; letters of no font are named."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from slime_vlm.cli.drawings import report_missing_letters
from slime_vlm.inference import fonts
from slime_vlm.inference.side_panel import INK, Column, Words

# No font has a letter for a code point of a private plane.
NOWHERE = "\U000f1234"
CYRILLIC = "Итого: 47"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of fonts, the only one of the machine, with the one that Matplotlib brings."""
    matplotlib = pytest.importorskip("matplotlib")
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    (tmp_path / "sub").mkdir()
    shutil.copy(font, tmp_path / "sub" / "b.TTF")
    (tmp_path / "a.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    monkeypatch.setattr(fonts.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    fonts._font_file.cache_clear()
    yield tmp_path
    fonts._font_file.cache_clear()


def test_latin_text_has_the_font_of_pillow() -> None:
    own = ImageFont.load_default(20)
    assert isinstance(own, ImageFont.FreeTypeFont)
    for text in ("Total", "naïve “x”…", ""):
        assert fonts.font_for(20, text).getname() == own.getname()
        assert fonts.missing_letters(text) == ""


def test_an_installed_font_is_found_in_its_folder(installed: Path) -> None:
    assert fonts.font_for(20, CYRILLIC).path == str(installed / "sub" / "b.TTF")
    assert fonts.missing_letters(CYRILLIC) == ""
    assert fonts.missing_letters(CYRILLIC + NOWHERE * 2 + "漢字") == "字漢"


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for fc-list is a shell script")
def test_fontconfig_is_asked_for_the_letters(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_FOLDERS", ())
    (tmp_path / "fc-list").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/asked\necho "{tmp_path}/sub/b.TTF: "\n')
    (tmp_path / "fc-list").chmod(0o755)
    assert fonts.font_for(20, "Да").path == str(tmp_path / "sub" / "b.TTF")
    assert (tmp_path / "asked").read_text() == ":charset=414 430\n"


def test_without_any_font_the_letters_are_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "_FOLDERS", ())
    report_missing_letters("Total: 合計 120 円")
    assert capsys.readouterr().err == (
        "slime: no installed font has 円合計, drawn as boxes; install one that has, such as Noto Sans CJK\n"
    )
    report_missing_letters("Total")
    assert capsys.readouterr().err == ""


def test_letters_are_no_boxes(installed: Path) -> None:
    def drawn(text: str) -> np.ndarray:
        canvas = Image.new("RGB", (200, 60), "white")
        Column([Words(text, 1.0, INK)], 24, 200).draw(canvas, 0, 0)
        return np.asarray(canvas)

    assert not np.array_equal(drawn("ЖЩ"), drawn(NOWHERE * 2))
    assert not np.array_equal(drawn("ЖЩ"), drawn("ДЫ"))
