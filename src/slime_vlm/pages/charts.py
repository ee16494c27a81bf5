"""Charts: bars and lines, with a word for every category and its value printed beside it."""

from __future__ import annotations

from slime_vlm.pages.page import Colour
from slime_vlm.pages.questions import Fact, ask
from slime_vlm.pages.sheet import GAP, Sheet
from slime_vlm.pages.text_blocks import add_filler, add_title
from slime_vlm.pages.values import draw_number
from slime_vlm.pages.vocabulary import CATEGORIES, CHART_ASKS, COLOURS, HIGHEST_ASKS, LOWEST_ASKS

_TRAINED = ("vertical", "horizontal", "line", "horizontal", "vertical_grid")
_HELDOUT = ("lollipop",)
_SUPERLATIVES = 0.2  # share of charts that are asked for their highest or lowest


def fill_chart(sheet: Sheet) -> None:
    """Lay out a chart on a sheet and ask for its values."""
    rng, margin = sheet.rng, sheet.margin
    layout = sheet.choose_layout(_TRAINED, _HELDOUT)
    top = add_title(sheet, "chart", 0.6 if sheet.height > 300 else 0.2)
    theme = rng.choice(tuple(CATEGORIES))
    short = theme in ("months", "days") and (rng.random() < 0.7 or sheet.width < 400)
    categories = list(CATEGORIES[theme])
    if rng.random() < 0.5:
        rng.shuffle(categories)
    else:
        start = rng.randrange(len(categories))
        categories = categories[start:] + categories[:start]
    shown = [(c[:3] if short else c).capitalize() for c in categories]
    digits, decimals = rng.choice((2, 3, 3, 3, 4)), int(rng.random() < 0.3)
    digits = min(digits, 3) if decimals else digits
    values = [draw_number(rng, digits, decimals, sheet.split) for _ in categories]
    colours = [sheet.accent] * len(categories)
    if rng.random() < 0.4:
        colours = [rng.choice(tuple(COLOURS.values())) for _ in categories]

    draw = _horizontal if layout == "horizontal" else _vertical
    bottom = sheet.height - margin
    if bottom - top > 350:  # a chart need not fill its page
        spare = (bottom - top - 300) * rng.uniform(0.0, 1.0)
        above = spare * rng.random()
        top, bottom = top + above, bottom - (spare - above)
    runs = draw(sheet, layout, top + 4, bottom, shown, categories, values, colours)
    add_filler(sheet, [(top, bottom)])
    facts = [
        Fact([a.format(k=c) for a in CHART_ASKS], v, (key,), value)
        for (key, value), c, v in zip(runs, categories, values, strict=False)
    ]
    count = len(facts)
    amounts = [float(v) for v in values[:count]]
    for asks, best in ((HIGHEST_ASKS, max), (LOWEST_ASKS, min)):
        if count > 1 and rng.random() < _SUPERLATIVES and amounts.count(best(amounts)) == 1:
            key, value = runs[amounts.index(best(amounts))]
            facts.append(Fact(asks, sheet.runs[key].text, (value,), key))

    def absent() -> Fact | None:
        others = [c for c in CATEGORIES[theme] if c not in categories[:count]]
        return Fact([a.format(k=rng.choice(others)) for a in CHART_ASKS]) if others else None

    sheet.questions = ask(sheet, "chart", facts, absent)


def _horizontal(
    sheet: Sheet,
    layout: str,
    top: float,
    bottom: float,
    shown: list[str],
    words: list[str],
    values: list[str],
    colours: list[Colour],
) -> list[tuple[int, int]]:
    """Draw bars from left to right and return the runs (category, value) of each."""
    rng, margin = sheet.rng, sheet.margin
    count = min(len(shown), int((bottom - top) // sheet.pitch), rng.randint(3, 8))
    label_width = max([sheet.body.width(t) for t in shown[:count]], default=0.0)
    value_width = max([sheet.body.width(t) for t in values[:count]], default=0.0)
    left = margin + label_width + 8
    longest = sheet.width - margin - value_width - GAP - left
    if longest < 4:
        return []
    longest = min(longest, rng.uniform(80, 420))
    pitch = min((bottom - top) / max(1, count), sheet.pitch * rng.uniform(1.0, 1.5))
    most = max([float(v) for v in values[:count]], default=1.0)
    sheet.draw("line", [(left, top), (left, top + pitch * count)], outline=sheet.ink)
    align_left = rng.random() < 0.5
    runs = []
    for i in range(count):
        middle = top + pitch * (i + 0.5)
        end = left + longest * float(values[i]) / most
        thick = pitch * 0.32
        sheet.draw("rectangle", [(left, middle - thick), (end, middle + thick)], fill=colours[i])
        x, align = (margin, "left") if align_left else (left - 8, "right")
        key = sheet.text(x, middle, shown[i], "key", (words[i],), align=align)
        # The bar of a small value is short, so the number needs a distance from the word of its own.
        x = max(end + 8, left - 8 + GAP)
        runs.append((key, sheet.text(x, middle, values[i], "value", (words[i],), (key,))))
    return runs


def _vertical(
    sheet: Sheet,
    layout: str,
    top: float,
    bottom: float,
    shown: list[str],
    words: list[str],
    values: list[str],
    colours: list[Colour],
) -> list[tuple[int, int]]:
    """Draw bars, points or a line from left to right and return the runs (category, value) of each."""
    rng, margin = sheet.rng, sheet.margin
    room = sheet.width - 2 * margin
    count = 0
    while count < min(len(shown), 8):
        step = max(sheet.body.width(t) for t in (*shown[: count + 1], *values[: count + 1])) + GAP
        if step * (count + 1) - GAP > room:
            break
        count += 1
    floor = bottom - sheet.pitch
    if count < 1 or floor - top < 1.6 * sheet.pitch:
        return []
    count = rng.randint(min(3, count), count)
    step = (room + GAP) / count
    start = margin + (step - GAP) / 2
    tallest = floor - top - sheet.pitch
    tallest = min(tallest, rng.uniform(0.5, 1.0) * tallest + 40)
    most = max(float(v) for v in values[:count])
    sheet.rule(margin, sheet.width - margin, floor, colour=sheet.ink)
    if layout == "vertical_grid":
        for i in range(1, 5):
            sheet.rule(margin, sheet.width - margin, floor - tallest * i / 4, colour=(222, 224, 228))
    ends = [(start + step * i, floor - tallest * float(values[i]) / most) for i in range(count)]
    if layout == "line" and count > 1:
        sheet.draw("line", ends, outline=sheet.accent, width=2)
    runs = []
    wide = min(step - GAP, rng.uniform(18, 60)) / 2
    for i, (x, y) in enumerate(ends):
        if layout.startswith("vertical"):
            sheet.draw("rectangle", [(x - wide, y), (x + wide, floor)], fill=colours[i])
        else:
            if layout == "lollipop":
                sheet.draw("line", [(x, y), (x, floor)], outline=colours[i], width=2)
            sheet.draw("ellipse", [(x - 4, y - 4), (x + 4, y + 4)], fill=colours[i])
        middle = y - sheet.pitch / 2
        if layout == "line":
            # The line may pass behind a number: a patch of paper keeps the number legible.
            half, tall = sheet.body.width(values[i]) / 2 + 2, sheet.body.grid_size * 0.5
            sheet.draw("rectangle", [(x - half, middle - tall), (x + half, middle + tall)], fill=sheet.paper)
        key = sheet.text(x, floor + sheet.pitch / 2, shown[i], "key", (words[i],), align="centre")
        runs.append((key, sheet.text(x, middle, values[i], "value", (words[i],), (key,), align="centre")))
    return runs
