"""Geometry: triangles and quadrilaterals with a letter at every vertex and a length at every side."""

from __future__ import annotations

import math
from itertools import pairwise

from slime_vlm.pages.questions import Fact, ask
from slime_vlm.pages.sheet import Sheet
from slime_vlm.pages.text_blocks import add_filler, add_title
from slime_vlm.pages.values import draw_value
from slime_vlm.pages.vocabulary import SIDE_ASKS, VERTICES

_TRIES = 40
_LARGEST = 330.0  # side of the area of one figure
_Box = tuple[float, float, float, float]


def fill_geometry(sheet: Sheet) -> None:
    """Lay out figures and ask for the lengths of their sides. Figures are sketches, not drawn to scale."""
    rng, margin = sheet.rng, sheet.margin
    layout = sheet.choose_layout(("outline", "filled"), ("dashed",))
    top = add_title(sheet, "geometry", 0.5 if sheet.height > 300 else 0.0)
    width, height = sheet.width - 2 * margin, sheet.height - margin - top
    cols, rows = max(1, round(width / _LARGEST)), max(1, round(height / _LARGEST))
    cells = [(r, c) for r in range(rows) for c in range(cols)]
    rng.shuffle(cells)
    letters = list(VERTICES)
    if rng.random() < 0.4:
        rng.shuffle(letters)
    facts: list[Fact] = []
    sides: set[frozenset[str]] = set()
    taken: list[tuple[float, float]] = []
    for r, c in cells[: rng.randint(1, min(3, len(cells)))]:
        area = (
            margin + width * c / cols,
            top + height * r / rows,
            margin + width * (c + 1) / cols,
            top + height * (r + 1) / rows,
        )
        corners = rng.choice((3, 3, 4))
        names, letters = letters[:corners], letters[corners:]
        facts += _figure(sheet, layout, area, names, sides)
        taken.append((area[1], area[3]))
    add_filler(sheet, taken)

    def absent() -> Fact | None:
        a, b = rng.sample(VERTICES, 2)
        return None if frozenset((a, b)) in sides else _side_fact(a + b)

    sheet.questions = ask(sheet, "geometry", facts, absent)


def _side_fact(name: str, *, answer: str | None = None, keys: tuple[int, ...] = (), run: int | None = None) -> Fact:
    wordings = [a.format(k=name) for a in SIDE_ASKS]
    return Fact(wordings, name=name) if answer is None else Fact(wordings, answer, keys, run, name)


def _overlap(a: _Box, b: _Box, gap: float) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] and b[1] < a[3]


def _figure(sheet: Sheet, layout: str, area: _Box, names: list[str], sides: set[frozenset[str]]) -> list[Fact]:
    """Draw one figure within an area and return its facts; none if its texts always overlap."""
    rng, count = sheet.rng, len(names)
    unit = rng.choice(("cm", "cm", "m", "mm", "km"))
    left, top, right, bottom = area
    tall = sheet.pitch * 0.9
    for _ in range(_TRIES):
        lengths = [_length(sheet, unit) for _ in names]
        x, y = (left + right) / 2 + rng.uniform(-15, 15), (top + bottom) / 2 + rng.uniform(-15, 15)
        turn = rng.uniform(0, 2 * math.pi)
        reach_x, reach_y = (right - left) * rng.uniform(0.2, 0.42), (bottom - top) * rng.uniform(0.25, 0.42)
        angles = [turn + 2 * math.pi * (i + rng.uniform(-0.16, 0.16)) / count for i in range(count)]
        points = [(x + reach_x * math.cos(a), y + reach_y * math.sin(a)) for a in angles]
        centre = (sum(p[0] for p in points) / count, sum(p[1] for p in points) / count)
        boxes: list[_Box] = []
        for name, point in zip(names, points, strict=True):
            boxes.append(_beside(point, centre, sheet.body.width(name), tall))
        for i, length in enumerate(lengths):
            a, b = points[i], points[(i + 1) % count]
            normal = (b[1] - a[1], a[0] - b[0])
            middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
            side = 1.0 if normal[0] * (middle[0] - centre[0]) + normal[1] * (middle[1] - centre[1]) > 0 else -1.0
            behind = (middle[0] - side * normal[0], middle[1] - side * normal[1])
            boxes.append(_beside(middle, behind, sheet.body.width(length), tall))
        inside = all(left <= b[0] and b[2] <= right and top <= b[1] and b[3] <= bottom for b in boxes)
        free = not any(_overlap(boxes[i], boxes[j], 10.0) for i in range(len(boxes)) for j in range(i))
        clear = not any(_crosses(points[i], points[(i + 1) % count], b) for i in range(count) for b in boxes)
        if inside and free and clear:
            break
    else:
        return []
    _draw(sheet, layout, points)
    middles = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes]
    vertices = [
        sheet.text(x, y, name, "key", (name,), align="centre")
        for name, (x, y) in zip(names, middles[:count], strict=True)
    ]
    facts = []
    for i, length in enumerate(lengths):
        j = (i + 1) % count
        pair, keys = (names[i], names[j]), (vertices[i], vertices[j])
        run = sheet.text(*middles[count + i], length, "value", pair, keys, align="centre")
        name = "".join(sorted(pair)) if rng.random() < 0.7 else "".join(pair)
        facts.append(_side_fact(name, answer=length, keys=keys, run=run))
        sides.add(frozenset(pair))
    return facts


def _length(sheet: Sheet, unit: str) -> str:
    rng = sheet.rng
    while True:
        text = draw_value(rng, "length", sheet.split, max_length=8).split()[0] + " " + unit
        if sheet.allows(text):
            return text


def _beside(point: tuple[float, float], behind: tuple[float, float], width: float, height: float) -> _Box:
    """Return the box of a text on the far side of a point, seen from `behind`, as near to the point as possible."""
    dx, dy = point[0] - behind[0], point[1] - behind[1]
    norm = math.hypot(dx, dy) or 1.0
    dx, dy = dx / norm, dy / norm
    reach = 7 + abs(dx) * width / 2 + abs(dy) * height / 2
    x, y = point[0] + dx * reach, point[1] + dy * reach
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _crosses(a: tuple[float, float], b: tuple[float, float], box: _Box) -> bool:
    """Return whether a side crosses a text, tested at points along the side."""
    for i in range(17):
        x, y = a[0] + (b[0] - a[0]) * i / 16, a[1] + (b[1] - a[1]) * i / 16
        if box[0] - 1 < x < box[2] + 1 and box[1] + 3 < y < box[3] - 3:
            return True
    return False


def _draw(sheet: Sheet, layout: str, points: list[tuple[float, float]]) -> None:
    if layout == "filled":
        sheet.draw("polygon", points, fill=(226, 232, 240))
    closed = [*points, points[0]]
    for a, b in pairwise(closed):
        if layout != "dashed":
            sheet.draw("line", [a, b], outline=sheet.ink, width=2)
            continue
        pieces = max(2, int(math.dist(a, b) // 12))
        for i in range(pieces):
            start, end = i / pieces, (i + 0.6) / pieces
            ends = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for t in (start, end)]
            sheet.draw("line", ends, outline=sheet.ink, width=2)
