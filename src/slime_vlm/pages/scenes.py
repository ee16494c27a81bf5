"""Scenes of coloured shapes with labels, and maps of towns with numbers."""

from __future__ import annotations

import math
from itertools import pairwise

from slime_vlm.pages.page import Colour
from slime_vlm.pages.questions import Fact, ask
from slime_vlm.pages.sheet import GAP, Sheet
from slime_vlm.pages.text_blocks import add_title
from slime_vlm.pages.values import draw_value
from slime_vlm.pages.vocabulary import COLOURS, MAP_ASKS, PLACES, SCENE_ASKS, SHAPES

_INSIDE = ("circle", "square", "hexagon", "oval")  # shapes with room for a label
_MOST_LABEL = 7
# Corners of a shape (those of a star point in and out in turn) and the direction of the first, in degrees.
_POLYGONS = {"square": (4, 45), "triangle": (3, 90), "star": (10, 90), "diamond": (4, 90), "hexagon": (6, 0)}


def shape_points(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around its middle; for a circle and an oval two corners of the box.

    Raises:
        KeyError: The shape is not in `SHAPES`.
    """
    if shape in ("circle", "oval"):
        tall = radius if shape == "circle" else 0.62 * radius
        return [(x - radius, y - tall), (x + radius, y + tall)]
    if shape == "cross":
        a, b = radius, radius * 0.34
        corner = [(b, -a), (b, -b), (a, -b)]
        quarters = [corner, [(-dy, dx) for dx, dy in corner]]
        quarters += [[(-dx, -dy) for dx, dy in quarter] for quarter in quarters]
        return [(x + dx, y + dy) for quarter in quarters for dx, dy in quarter]
    corners, first = _POLYGONS[shape]
    points = []
    for i in range(corners):
        angle = math.radians(first + 360 * i / corners)
        reach = radius * (0.45 if shape == "star" and i % 2 else 1.0)
        reach *= {"square": 1.25, "diamond": 1.1}.get(shape, 1.0)
        points.append((x + reach * math.cos(angle), y - reach * math.sin(angle)))
    return points


def _cells(sheet: Sheet, top: float, width: float, height: float) -> list[tuple[float, float]]:
    """Return the top left corners of cells of a page, each at least (height, width), in random order."""
    room_x, room_y = sheet.width - 2 * sheet.margin, sheet.height - sheet.margin - top
    cols, rows = int((room_x + GAP) // (width + GAP)), int(room_y // height)
    if cols < 1 or rows < 1:
        return []
    slack_x, slack_y = (room_x + GAP) / cols - width - GAP, room_y / rows - height
    found = []
    for r in range(rows):
        for c in range(cols):
            x = sheet.margin + c * (room_x + GAP) / cols + sheet.rng.uniform(0, slack_x)
            found.append((x, top + r * room_y / rows + sheet.rng.uniform(0, slack_y)))
    sheet.rng.shuffle(found)
    return found


def fill_scene(sheet: Sheet) -> None:
    """Lay out coloured shapes, each with a label in it or under it. No two are the same."""
    rng = sheet.rng
    # Labels above the shapes cannot be the held-out arrangement: they would be as close to the shape of the row above.
    layout = sheet.choose_layout(("below", "inside", "mixed"), ("plate",))
    top = add_title(sheet, "scene", 0.3 if sheet.height > 300 else 0.0)
    radius = rng.uniform(26, 40)
    widest = max(2 * radius * 1.05, sheet.body.width("0") * _MOST_LABEL)
    cells = _cells(sheet, top, widest, 2 * radius + sheet.pitch + 4)
    pairs = [(c, s) for c in COLOURS for s in SHAPES]
    rng.shuffle(pairs)
    outline: Colour | None = sheet.ink if rng.random() < 0.3 else None
    facts = []
    most = rng.randint(min(4, len(cells)), min(len(cells), 18)) if cells else 0
    used = pairs[:most]
    for (colour, shape), (left, y) in zip(used, cells, strict=False):
        text = _label(sheet, widest)
        x = left + widest / 2
        middle = y + radius
        inside = layout != "plate" and shape in _INSIDE and (layout == "inside" or rng.random() < 0.5)
        inside = inside and sheet.body.width(text) < 2 * radius * (0.84 if shape == "square" else 0.8)
        sheet.draw(
            "ellipse" if shape in ("circle", "oval") else "polygon",
            shape_points(shape, x, middle, radius),
            fill=COLOURS[colour],
            outline=outline,
            words=(colour, shape),
        )
        ink, at = sheet.ink, middle + radius + sheet.pitch / 2
        if layout == "plate":
            half = sheet.body.width(text) / 2 + 5
            plate = [(x - half, at - sheet.pitch / 2 + 2), (x + half, at + sheet.pitch / 2 - 2)]
            sheet.draw("rectangle", plate, fill=(255, 255, 255), outline=sheet.accent)
            ink = (20, 20, 20)
        if inside:
            at = middle
            ink = (0, 0, 0) if sum(COLOURS[colour]) > 380 else (255, 255, 255)
        run = sheet.text(x, at, text, "label", (colour, shape), colour=ink, align="centre")
        facts.append(Fact([a.format(c=colour, s=shape) for a in SCENE_ASKS], text, (), run))

    def absent() -> Fact | None:
        # The hard case: a colour or a shape of the page in another combination.
        colour, shape = rng.choice([p for p in pairs if p not in used])
        if used and rng.random() < 0.6:
            near = [(c, s) for c, s in pairs if (c, s) not in used and (c == used[0][0] or s == used[0][1])]
            colour, shape = rng.choice(near)
        return Fact([a.format(c=colour, s=shape) for a in SCENE_ASKS])

    sheet.questions = ask(sheet, "scene", facts, absent)


def _label(sheet: Sheet, widest: float) -> str:
    rng = sheet.rng
    text = ""
    for _ in range(20):
        value_type = rng.choice(("code", "name", "integer", "number"))
        text = draw_value(rng, value_type, sheet.split, max_length=_MOST_LABEL)
        if sheet.body.width(text) <= widest:
            break
    return text


_LAND: tuple[Colour, ...] = ((236, 242, 226), (244, 240, 226), (232, 240, 238), (248, 248, 244))
_WATER: Colour = (206, 224, 240)
_ROAD: Colour = (226, 212, 178)


def fill_map(sheet: Sheet) -> None:
    """Lay out a map: towns with their population over land, water and roads."""
    rng = sheet.rng
    layout = sheet.choose_layout(("under", "plain"), ("boxed",))
    top = add_title(sheet, "map", 0.3 if sheet.height > 300 else 0.0)
    places = list(PLACES)
    rng.shuffle(places)
    case = rng.choice((str.capitalize, str.capitalize, str.upper))
    widest = sheet.body.width(case("hartwell"))
    cells = _cells(sheet, top, widest + 16, 2 * sheet.pitch + 6)
    _draw_land(sheet, top if sheet.runs else 0.0)
    count = rng.randint(min(4, len(cells)), min(len(cells), 14)) if cells else 0
    facts = []
    spots = []
    texts = []
    for word, (left, y) in zip(places[:count], cells, strict=False):
        number = draw_value(rng, "population", sheet.split)
        if sheet.body.width(case(word)) > widest + 1:
            continue
        spots.append((left + 6, y + sheet.pitch / 2))
        texts.append((word, number, left + 16, y))
    order = sorted(spots)
    for a, b in pairwise(order):
        if rng.random() < 0.7:
            sheet.draw("line", [a, b], outline=_ROAD, width=3)
    for (x, y), (word, number, left, cell_top) in zip(spots, texts, strict=True):
        if layout == "boxed":
            wide = max(sheet.body.width(case(word)), sheet.body.width(number))
            box = [(left - 4, cell_top + 2), (left + wide + 4, cell_top + 2 * sheet.pitch - 2)]
            sheet.draw("rectangle", box, fill=(255, 255, 255), outline=sheet.accent)
        sheet.draw("ellipse", [(x - 4, y - 4), (x + 4, y + 4)], fill=sheet.accent)
        key = sheet.text(left, y, case(word), "key", (word,))
        run = sheet.text(left, y + sheet.pitch, number, "value", (word,), (key,))
        facts.append(Fact([a.format(p=word) for a in MAP_ASKS], number, (key,), run))
    shown = {word for word, *_ in texts}

    def absent() -> Fact | None:
        word = rng.choice([p for p in PLACES if p not in shown])
        return Fact([a.format(p=word) for a in MAP_ASKS])

    sheet.questions = ask(sheet, "map", facts, absent)


def _draw_land(sheet: Sheet, top: float) -> None:
    rng, width, height = sheet.rng, sheet.width, sheet.height
    sheet.draw("rectangle", [(0, top), (width, height)], fill=rng.choice(_LAND))
    if rng.random() < 0.7:
        x, y = rng.uniform(0, width), rng.uniform(top, height)
        reach = rng.uniform(0.2, 0.5) * min(width, height)
        points = []
        for i in range(14):
            r = reach * rng.uniform(0.75, 1.1)
            angle = 2 * math.pi * i / 14
            points.append((x + r * math.cos(angle), max(top, y + r * math.sin(angle))))
        sheet.draw("polygon", points, fill=_WATER)
    if rng.random() < 0.6:
        y, points = rng.uniform(top, height), []
        for i in range(9):
            points.append((width * i / 8, min(height, max(top, y))))
            y += rng.uniform(-0.12, 0.12) * height
        sheet.draw("line", points, outline=_WATER, width=5)
