"""Tables: a word for every row and column, a value in every cell."""

from __future__ import annotations

from slime_vlm.pages.page import Colour
from slime_vlm.pages.questions import Fact, ask
from slime_vlm.pages.sheet import GAP, Sheet
from slime_vlm.pages.text_blocks import add_filler, add_title
from slime_vlm.pages.values import draw_value
from slime_vlm.pages.vocabulary import (
    COLUMNS,
    COUNTED,
    COUNTED_ASKS,
    ITEMS,
    PRICE_ASKS,
    TABLE_ASKS,
    is_heldout_pairing,
)

_TRAINED = ("ruled", "header_rule", "zebra", "grid", "plain")
_HELDOUT = ("boxed_header", "dotted")
_CORNERS = ("", "", "Item", "Name", "No")


def _wordings(row: str, column: str) -> list[str]:
    asks = list(TABLE_ASKS)
    if column in COUNTED:
        asks += COUNTED_ASKS
    if column == "price":
        asks += PRICE_ASKS
    return [a.format(r=row, c=column) for a in asks]


def fill_table(sheet: Sheet) -> None:
    """Lay out a table on a sheet and ask about its cells."""
    rng, margin = sheet.rng, sheet.margin
    style = sheet.choose_layout(_TRAINED, _HELDOUT)
    top = add_title(sheet, "table", 0.45 if sheet.height > 300 else 0.25)
    room = int((sheet.height - margin - top) // sheet.pitch) - 1
    theme = rng.choice(tuple(ITEMS))
    num_rows = max(1, min(rng.randint(3, 8), room, len(ITEMS[theme])))
    rows = rng.sample(ITEMS[theme], num_rows)
    row_case = rng.choice((str.capitalize, str.capitalize, str.lower))
    shown = {r: row_case(r) for r in rows}

    # Add columns while they fit. A column is as wide as its widest text.
    columns, cells, widths = [], [], []
    row_width = max(sheet.body.width(t) for t in shown.values())
    left_over = sheet.width - 2 * margin - row_width
    header_case = rng.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    for column in rng.sample(tuple(COLUMNS[theme]), rng.randint(2, 5) if sheet.width < 500 else rng.randint(3, 5)):
        value_type = COLUMNS[theme][column]
        longest = rng.choice((5, 6, 8)) if sheet.width < 400 else 9
        try_cells = [draw_value(rng, value_type, sheet.split, max_length=max(longest, 7)) for _ in rows]
        width = max([sheet.head.width(header_case(column)), *(sheet.body.width(t) for t in try_cells)])
        if left_over < width + GAP:
            continue
        left_over -= width + GAP
        columns.append(column)
        cells.append(try_cells)
        widths.append(width)

    stretch = min(left_over / max(1, len(columns)), rng.uniform(0, max(70.0, sheet.width / 8))) if columns else 0.0
    offset = rng.uniform(0, max(0.0, left_over - stretch * len(columns)))
    pitch = sheet.pitch * min(rng.uniform(1.0, 1.3), max(1.0, (room * 1.0) / num_rows))
    height = pitch * (num_rows + 1)
    top += rng.uniform(0, max(0.0, sheet.height - margin - top - height))
    left = margin + offset
    right = left + row_width + sum(widths) + (GAP + stretch) * len(columns)
    header_ink = _draw_lines(sheet, style, left, right, top, pitch, num_rows, row_width, widths, stretch)

    corner = rng.choice(_CORNERS)
    middle = top + pitch / 2
    if corner and sheet.head.width(corner) <= row_width:
        sheet.text(left, middle, corner, "other", face=sheet.head, colour=header_ink)
    align = rng.choice(("left", "right", "right", "centre"))
    anchors = []
    x = left + row_width
    for width in widths:
        x += GAP + stretch
        anchors.append(x + {"left": 0.0, "right": width, "centre": width / 2}[align])
        x += width
    column_runs = [
        sheet.text(a, middle, header_case(c), "column", (c,), face=sheet.head, colour=header_ink, align=align)
        for a, c in zip(anchors, columns, strict=True)
    ]
    facts: list[Fact] = []
    heldout_facts: list[Fact] = []
    for i, row in enumerate(rows):
        middle += pitch
        row_run = sheet.text(left, middle, shown[row], "row", (row,))
        for j, column in enumerate(columns):
            text = cells[j][i]
            words, owners = (row, column), (row_run, column_runs[j])
            run = sheet.text(anchors[j], middle, text, "cell", words, owners, align=align)
            fact = Fact(_wordings(row, column), text, owners, run)
            (heldout_facts if is_heldout_pairing(row, column) else facts).append(fact)
    add_filler(sheet, [(top, top + height)], 0.5 if sheet.height > 400 else 0.3)

    def absent() -> Fact | None:
        row, column = rng.choice(rows), rng.choice([c for c in COLUMNS[theme] if c not in columns])
        if rng.random() < 0.5 and columns:
            row, column = rng.choice([r for r in ITEMS[theme] if r not in rows]), rng.choice(columns)
        return Fact(_wordings(row, column))

    asked = (heldout_facts + rng.sample(facts, min(len(facts), 4))) if sheet.heldout else facts
    sheet.questions = ask(sheet, "table", asked, absent)


def _draw_lines(
    sheet: Sheet,
    style: str,
    left: float,
    right: float,
    top: float,
    pitch: float,
    num_rows: int,
    row_width: float,
    widths: list[float],
    stretch: float,
) -> Colour:
    """Draw the rules of a table and return the colour of its header's text."""
    pad = min(7.0, sheet.margin - 2)
    left, right = left - pad, right + pad
    bottom = top + pitch * (num_rows + 1)
    light: Colour = (206, 210, 216)
    if style in ("ruled", "grid", "dotted"):
        for i in range(num_rows + 2):
            y = top + pitch * i
            if style == "dotted":
                for dot in range(int(left), int(right), 7):
                    sheet.rule(dot, min(dot + 2, right), y, colour=sheet.accent)
            else:
                sheet.rule(left, right, y, colour=light if i > 1 else sheet.accent)
    if style == "grid":
        x = left
        for width in (pad + row_width, *[w + GAP + stretch for w in widths]):
            sheet.draw("line", [(x, top), (x, bottom)], outline=light)
            x += width + (GAP / 2 if x == left else 0)
        sheet.draw("rectangle", [(left, top), (right, bottom)], outline=sheet.accent)
    if style == "zebra":
        for i in range(2, num_rows + 1, 2):
            sheet.draw("rectangle", [(left, top + pitch * i), (right, top + pitch * (i + 1))], fill=(228, 232, 238))
    if style == "boxed_header":
        sheet.draw("rectangle", [(left, top), (right, top + pitch)], outline=sheet.accent, width=1.5)
        sheet.draw("rectangle", [(left, top), (right, bottom)], outline=sheet.accent, width=1.5)
    if style in ("header_rule", "zebra", "plain"):
        if style == "zebra" or sheet.rng.random() < 0.3:
            sheet.draw("rectangle", [(left, top + 1), (right, top + pitch - 1)], fill=sheet.accent)
            return (250, 250, 250)
        if style == "header_rule":
            sheet.rule(left, right, top + pitch, width=1.5)
    return sheet.ink
