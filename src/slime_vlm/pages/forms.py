"""Forms, invoices and receipts: keys with their values in many arrangements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slime_vlm.pages.page import Colour
from slime_vlm.pages.questions import Fact, ask
from slime_vlm.pages.sheet import GAP, Sheet
from slime_vlm.pages.text_blocks import add_filler, add_title, filler_line
from slime_vlm.pages.values import draw_value, shortest_value
from slime_vlm.pages.vocabulary import ASKS, ITEM_ASKS, ITEMS, KEYS, NOT_ASKED, Key

_TRAINED = ("inline", "tab", "right", "leaders", "stacked", "boxed", "underlined")
_HELDOUT = ("right_keys", "cells")
_TWO_LINES = ("stacked", "boxed")
_NARROWEST = 14  # digits in a column that holds a key and its value on one line
_PREFERRED = {"invoice": {"money", "code", "date"}, "receipt": {"money"}}


@dataclass
class _Block:
    """A column of a page: its left and right ends, and the range of heights to fill."""

    left: float
    right: float
    top: float
    bottom: float


def _wordings(key: Key) -> list[str]:
    own = ASKS.get(key.value_type, ())
    generic = [w for w in own if key.phrase not in NOT_ASKED.get((key.value_type, w), ())]
    if key.value_type == "integer" and not key.phrase.endswith("s"):
        generic = []
    return [w.format(k=key.phrase) for w in (*ASKS[""], *generic)] + list(key.asks) * 2


def _item_wordings(key: Key) -> list[str]:
    return [w.format(k=key.phrase) for w in ITEM_ASKS]


def _compatible(key: Key, chosen: list[Key]) -> bool:
    """Return whether no chosen key contains this one or is part of it. "date" beside "due date" would be ambiguous."""
    mine = set(key.words)
    return not any(mine <= set(other.words) or mine >= set(other.words) for other in chosen)


class _Pairs:
    """Key-value pairs on a sheet in one look, which are remembered as facts."""

    def __init__(self, sheet: Sheet, kind: str, layout: str):
        rng = sheet.rng
        self.sheet, self.kind, self.layout = sheet, kind, layout
        self.key_face = sheet.head if rng.random() < 0.6 else sheet.body
        self.case = rng.choice((str, str, str.upper, str.title, str))
        self.mark = rng.choice((":", ""))
        self.key_colour: Colour = sheet.accent if rng.random() < 0.25 else sheet.ink
        self.chosen: list[Key] = []
        self.facts: list[Fact] = []
        self.items: set[str] = set()

    def keys(self) -> Iterator[Key]:
        """Yield keys in random order, those that suit the kind of page first."""
        rng = self.sheet.rng
        longest = self.sheet.settings.max_value_length
        keys = [key for key in KEYS if shortest_value(key.value_type) <= longest]
        rng.shuffle(keys)
        preferred = _PREFERRED.get(self.kind)
        if preferred:
            keys.sort(key=lambda key: (key.value_type not in preferred) and rng.random() < 0.75)
        yield from keys

    def printed(self, key: Key) -> str:
        rng = self.sheet.rng
        text = self.case(key.printed[0] if rng.random() < 0.6 else rng.choice(key.printed))
        return text + self.mark if text[-1] not in ".:#" else text

    def write(self, key: Key, block: _Block, middle: float, tab: float, *, item: bool = False) -> bool:
        """Write one pair with its first line at a height. Return False if it does not fit the block."""
        sheet, rng = self.sheet, self.sheet.rng
        text = self.printed(key)
        key_width = self.key_face.width(text)
        room = block.right - block.left - (0 if self.layout in _TWO_LINES else key_width + GAP)
        if self.layout in ("tab", "cells", "right_keys"):
            room = block.right - block.left - tab - GAP
            if key_width > tab:
                return False
        for _ in range(4):
            value = draw_value(rng, key.value_type, sheet.split, max_length=sheet.settings.max_value_length)
            if sheet.body.width(value) <= room:
                break
        else:
            return False
        if key_width > block.right - block.left:
            return False
        key_x, key_align, value_x, value_align, value_y = block.left, "left", block.right, "right", middle
        if self.layout in _TWO_LINES:
            value_x, value_align, value_y = block.left, "left", middle + sheet.pitch
        elif self.layout in ("inline", "underlined"):
            value_x, value_align = block.left + key_width + GAP, "left"
        elif self.layout in ("tab", "cells", "right_keys"):
            value_x, value_align = block.left + tab + GAP, "left"
            if self.layout == "right_keys":
                key_x, key_align = block.left + tab, "right"
        key_run = sheet.text(
            key_x, middle, text, "key", key.words, face=self.key_face, colour=self.key_colour, align=key_align
        )
        owners = (key_run,) * len(key.words)
        value_run = sheet.text(value_x, value_y, value, "value", key.words, owners, align=value_align)
        self._decorate(block, middle, key_width, sheet.body.width(value), tab)
        self.chosen.append(key)
        if item:
            self.items.add(key.phrase)
        self.facts.append(Fact(_item_wordings(key) if item else _wordings(key), value, (key_run,), value_run))
        return True

    def _decorate(self, block: _Block, middle: float, key_width: float, value_width: float, tab: float) -> None:
        sheet = self.sheet
        low = middle + sheet.pitch * 0.5 - 1
        if self.layout == "leaders":
            x, end = block.left + key_width + 8, block.right - value_width - 8
            y = middle + sheet.body.grid_size * 0.3
            while x + 2 < end:
                sheet.draw("ellipse", [(x, y), (x + 1.6, y + 1.6)], fill=sheet.ink)
                x += 7
        elif self.layout == "underlined":
            sheet.rule(block.left + key_width + GAP - 6, block.right, low, colour=(120, 120, 124))
        elif self.layout == "boxed":
            box = [(block.left - 5, middle - sheet.pitch * 0.5), (block.right, low + sheet.pitch)]
            sheet.draw("rectangle", box, outline=sheet.accent)
        elif self.layout == "cells":
            box = [(block.left - 5, middle - sheet.pitch * 0.5), (block.right, low)]
            sheet.draw("rectangle", box, outline=sheet.accent)
            x = block.left + tab + GAP / 2
            sheet.draw("line", [(x, box[0][1]), (x, box[1][1])], outline=sheet.accent)

    def fill(self, block: _Block, keys: Iterator[Key], density: float) -> None:
        """Fill a block from the top with pairs, blank lines and lines of other text."""
        sheet, rng = self.sheet, self.sheet.rng
        lines = 2 if self.layout in _TWO_LINES else 1
        tab = (block.right - block.left) * rng.uniform(0.42, 0.55)
        y = block.top
        while y + lines * sheet.pitch <= block.bottom + 0.5:
            draw = rng.random()
            if draw > density:
                y += sheet.pitch * rng.choice((0.5, 1.0))
                continue
            middle = y + sheet.pitch / 2
            if draw < 0.06 * density and (line := filler_line(sheet, block.right - block.left)):
                sheet.text(block.left, middle, line, "other")
                y += sheet.pitch
                continue
            for _ in range(30):
                key = next(keys, None)
                if key is None:
                    return
                if _compatible(key, self.chosen) and self.write(key, block, middle, tab):
                    break
            else:
                return
            # Leave space after pairs of two lines, so that a value is nearer to its own key than to the next.
            y += sheet.pitch * {"cells": 1.0, "stacked": 2.35, "boxed": 2.12}.get(self.layout, 1.03)

    def ask(self) -> None:
        """Ask about what was written, and about keys that were not."""
        sheet, rng = self.sheet, self.sheet.rng

        def absent() -> Fact | None:
            if self.items and rng.random() < 0.4:
                words = [w for w in (*ITEMS["food"], *ITEMS["tools"]) if w not in self.items]
                return Fact(_item_wordings(Key((rng.choice(words),), "money", ())))
            keys = [key for key in KEYS if _compatible(key, self.chosen)]
            return Fact(_wordings(rng.choice(keys))) if keys else None

        sheet.questions = ask(sheet, self.kind, self.facts, absent)


def _columns(sheet: Sheet, top: float, bottom: float, most: int) -> list[_Block]:
    rng, margin = sheet.rng, sheet.margin
    narrowest = _NARROWEST * sheet.body.width("0") + GAP
    count = max(1, min(most, int((sheet.width - 2 * margin + GAP) // (narrowest + GAP))))
    count = rng.randint(max(1, count - 1), count)
    inner = (sheet.width - 2 * margin - GAP * (count - 1)) / count
    # A wide column would put the whole page between a key and its value. Most columns are narrower than they could be.
    width = inner if rng.random() < 0.3 else min(inner, rng.uniform(230, 420))
    return [_Block(margin + i * (inner + GAP), margin + i * (inner + GAP) + width, top, bottom) for i in range(count)]


def fill_form(sheet: Sheet) -> None:
    """Lay out a form: titled columns of pairs in one arrangement."""
    rng = sheet.rng
    pairs = _Pairs(sheet, "form", sheet.choose_layout(_TRAINED, _HELDOUT))
    top = add_title(sheet, "form", 0.6 if sheet.height > 300 else 0.3)
    bottom = sheet.height - sheet.margin
    if bottom - top > 400 and rng.random() < 0.5:
        bottom -= rng.uniform(0, 0.5) * (bottom - top)
    keys = pairs.keys()
    for block in _columns(sheet, top, bottom, 4):
        pairs.fill(block, keys, rng.uniform(0.75, 1.0))
    if rng.random() < 0.2:
        inset = min(4.0, sheet.margin / 3)
        sheet.draw("rectangle", [(inset, inset), (sheet.width - inset, sheet.height - inset)], outline=sheet.accent)
    add_filler(sheet, [])
    pairs.ask()


def fill_invoice(sheet: Sheet) -> None:
    """Lay out an invoice: title and logo, data of the order, amounts at the lower right."""
    rng, margin = sheet.rng, sheet.margin
    pairs = _Pairs(sheet, "invoice", sheet.choose_layout(_TRAINED, _HELDOUT))
    top = add_title(sheet, "invoice", 0.9 if sheet.height > 300 else 0.4)
    keys = list(pairs.keys())
    money = [key for key in keys if key.value_type == "money"]
    other = [key for key in keys if key.value_type != "money"]
    bottom = sheet.height - margin
    if sheet.height > 420 and rng.random() < 0.7:
        _letterhead(sheet, top)
        top += 2.2 * sheet.pitch
    split = top + (bottom - top) * rng.uniform(0.4, 0.6)
    for block in _columns(sheet, top, split, 3):
        pairs.fill(block, iter([k for k in other if k not in pairs.chosen]), rng.uniform(0.8, 1.0))
    sheet.rule(margin, sheet.width - margin, split + 2, width=1.5)
    amounts = _columns(sheet, split + 6, bottom, 2)
    if len(amounts) > 1 and rng.random() < 0.6:
        amounts = amounts[-1:]
    for block in amounts:
        pairs.layout = pairs.layout if pairs.layout not in ("inline", "underlined") else "right"
        pairs.fill(block, iter([k for k in money if k not in pairs.chosen]), rng.uniform(0.8, 1.0))
    add_filler(sheet, [(top, bottom)] if sheet.height < 420 else [])
    pairs.ask()


def _letterhead(sheet: Sheet, top: float) -> None:
    rng = sheet.rng
    side = 1.7 * sheet.pitch
    left = sheet.margin if rng.random() < 0.5 else sheet.width - sheet.margin - side
    shape = rng.choice(("rectangle", "ellipse"))
    sheet.draw(shape, [(left, top + 4), (left + side, top + 4 + side)], fill=sheet.accent)
    x = left + side + GAP if left < sheet.width / 2 else sheet.margin
    room = sheet.width - 2 * sheet.margin - side - GAP
    name, road = (draw_value(rng, "name", sheet.split) for _ in range(2))
    lines = (f"{name} Ltd", f"{draw_value(rng, 'integer', sheet.split)} {road} Road")
    for i, line in enumerate(lines):
        if sheet.body.width(line) <= room:
            sheet.text(x, top + (i + 0.5) * sheet.pitch, line, "other")


def fill_receipt(sheet: Sheet) -> None:
    """Lay out a receipt: a strip with goods and their prices, then the amounts."""
    rng, margin = sheet.rng, sheet.margin
    layout = sheet.choose_layout(("right", "leaders", "tab"), _HELDOUT)
    widest = sheet.width - 2 * margin
    width = min(widest, rng.uniform(235, 380))
    left = margin + rng.uniform(0, widest - width)
    if width < widest - 40 and rng.random() < 0.6:
        strip = [(left - min(9, margin), 0), (left + width + min(9, margin), sheet.height)]
        sheet.draw("rectangle", strip, fill=(255, 255, 255), outline=(170, 170, 170))
    y = margin
    if rng.random() < 0.5:
        title = f"{draw_value(rng, 'name', sheet.split)} {rng.choice(('Shop', 'Store', 'Cafe', 'Market'))}"
        if sheet.head.width(title) < width:
            sheet.text(left + width / 2, y + sheet.pitch / 2, title, "other", face=sheet.head, align="centre")
            y += sheet.pitch
    pairs = _Pairs(sheet, "receipt", layout)
    bottom = sheet.height - margin
    block = _Block(left, left + width, y, bottom)
    count = max(1, int((bottom - y) // sheet.pitch * rng.uniform(0.3, 0.6)))
    goods = rng.sample((*ITEMS["food"], *ITEMS["tools"]), min(count, 30))
    tab = width * rng.uniform(0.42, 0.55)
    mark, pairs.mark = pairs.mark, ""
    for word in goods:
        if y + sheet.pitch > bottom:
            break
        if pairs.write(Key((word,), "money", (word.capitalize(),)), block, y + sheet.pitch / 2, tab, item=True):
            y += sheet.pitch * 1.02
    pairs.mark = mark
    _dashes(sheet, left, left + width, y + 2)
    pairs.fill(_Block(left, left + width, y + 5, bottom), pairs.keys(), rng.uniform(0.85, 1.0))
    pairs.ask()


def _dashes(sheet: Sheet, left: float, right: float, y: float) -> None:
    x = left
    while x < right:
        sheet.rule(x, min(x + 6, right), y, colour=sheet.ink)
        x += 10
