"""Specimen sheets: lines full of characters and words in many faces, without questions, to train a vision encoder fast.

A form leaves most of a page empty. A specimen shows about four times as many characters for the same pixels.
"""

from __future__ import annotations

from slime_vlm.pages.fonts import font_names
from slime_vlm.pages.sheet import GAP, MIN_PITCH, Sheet
from slime_vlm.pages.values import is_heldout
from slime_vlm.pages.vocabulary import COLUMNS, ITEMS, KEYS, PLACES, characters

# Most questions ask for codes and numbers.
_VALUE_CHARACTERS = "0123456789" * 4 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2 + ".,:-/%$" * 2
_ANY_CHARACTERS = characters().replace(" ", "")
_ROWS = sorted({item for items in ITEMS.values() for item in items} | set(PLACES))
_COLUMNS = sorted({column for columns in COLUMNS.values() for column in columns})


def fill_specimen(sheet: Sheet) -> None:
    """Fill a sheet from edge to edge."""
    rng = sheet.rng
    names = font_names(sheet.split, sheet.settings.fonts)
    low, high = sheet.settings.text_px
    y = rng.uniform(4, 20)
    while True:
        faces = [sheet.face(rng.choice(names), rng.uniform(low, high)) for _ in range(2)]
        pitch = max(MIN_PITCH, 1.5 * max(face.grid_size for face in faces)) * rng.uniform(1.0, 1.08)
        if y + pitch > sheet.height:
            return
        x = rng.uniform(2, 30)
        while True:
            face = rng.choice(faces)
            text, role, words = _piece(sheet)
            if x + face.width(text) > sheet.width - 2:
                break
            colour = sheet.accent if rng.random() < 0.15 else sheet.ink
            sheet.text(x, y + pitch / 2, text, role, words, face=face, colour=colour)
            x += face.width(text) + GAP + rng.expovariate(0.1)
        y += pitch


def _piece(sheet: Sheet) -> tuple[str, str, tuple[str, ...]]:
    """Draw a text; return it with its role and the words that it spells."""
    rng = sheet.rng
    if rng.random() < 0.35:
        role = rng.choice(("key", "row", "column"))
        if role == "key":
            key = rng.choice(KEYS)
            text, words = rng.choice(key.printed), key.words
        else:
            text = rng.choice(_ROWS if role == "row" else _COLUMNS)
            words = (text,)
        return rng.choice((text, text.capitalize(), text.title(), text.upper())), role, words
    pool = _VALUE_CHARACTERS if rng.random() < 0.6 else _ANY_CHARACTERS
    while True:
        text = "".join(rng.choice(pool) for _ in range(rng.randint(2, 10)))
        if rng.random() < 0.15 and len(text) > 4:
            text = f"{text[:2]} {text[3:]}"
        if is_heldout(text) == sheet.heldout:
            return text, "value", ()
