"""Fonts for any text: Pillow's own for Latin letters, and an installed font that has the letters for other texts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

_LAST_LATIN = 0x24F
# Not Latin letters, but Pillow's own font has them.
_PUNCTUATION = "‘’“”…"  # noqa: RUF001

# No font has a glyph for it, so it is drawn as the box of a missing letter.
_NO_LETTER = "\U0010ffff"
_PROBE_SIZE = 24

_FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDINGS = (".ttf", ".otf", ".ttc")


def font_for(size: int, text: str) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, or for letters beyond Latin the font with most of them that this machine has."""
    font = _font_of(_font_file(_letters_of(text)), size)
    assert font is not None
    return font


def missing_letters(text: str) -> str:
    """Return the letters of a text that no font on this machine has, and that are drawn as boxes."""
    letters = _letters_of(text)
    font = _font_of(_font_file(letters), _PROBE_SIZE)
    assert font is not None
    return "".join(sorted(letters - _present(font, letters)))


def _letters_of(text: str) -> frozenset[str]:
    """Return the letters that a font has to have; none for a Latin text. Marks and controls may have no glyph."""
    foreign = any(ord(letter) > _LAST_LATIN and letter not in _PUNCTUATION for letter in text)
    return frozenset(letter for letter in text if foreign and unicodedata.category(letter)[0] in "LNPS")


@cache
def _font_file(letters: frozenset[str]) -> str | None:
    """Return the font with most of some letters; None for Pillow's own."""
    best, most = None, 0
    for path in _candidates(letters) if letters else ():
        font = _font_of(path, _PROBE_SIZE)
        found = 0 if font is None else len(_present(font, letters))
        if found > most:
            best, most = path, found
        if most == len(letters):
            break
    return best


def _candidates(letters: frozenset[str]) -> Iterator[str | None]:
    """Yield fonts to try: Pillow's, Matplotlib's, those that fontconfig finds, and all of the usual folders."""
    yield None
    found = importlib.util.find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        yield str(Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
    yield from _of_fontconfig(letters)
    for folder in _FOLDERS:
        for parent, folders, files in os.walk(Path(folder).expanduser()):
            folders.sort()
            yield from (str(Path(parent, file)) for file in sorted(files) if file.lower().endswith(_ENDINGS))


def _of_fontconfig(letters: frozenset[str]) -> list[str]:
    """Return the installed fonts that have all letters, as fontconfig knows them; none without fontconfig."""
    codes = " ".join(f"{ord(letter):x}" for letter in sorted(letters))
    try:
        done = subprocess.run(
            ["fc-list", f":charset={codes}", "file"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    paths = (line.rstrip().removesuffix(":").rstrip() for line in done.stdout.splitlines())
    return sorted(path for path in paths if path.lower().endswith(_ENDINGS))


def _font_of(path: str | None, size: int) -> ImageFont.FreeTypeFont | None:
    """Open a font; None if it cannot be used."""
    try:
        font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError:
        return None
    return font if isinstance(font, ImageFont.FreeTypeFont) else None


def _present(font: ImageFont.FreeTypeFont, letters: frozenset[str]) -> frozenset[str]:
    """Return the letters that a font draws otherwise than a missing letter."""
    box = _drawn(font, _NO_LETTER)
    return frozenset(letter for letter in letters if _drawn(font, letter) != box)


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
