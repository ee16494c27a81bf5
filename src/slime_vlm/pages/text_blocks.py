"""Text that answers no question: titles, paragraphs and stamps."""

from __future__ import annotations

from collections.abc import Sequence

from slime_vlm.pages.sheet import Sheet
from slime_vlm.pages.values import draw_value
from slime_vlm.pages.vocabulary import FILLER, STAMPS, TITLES, words

_WORDS = frozenset(words())


def add_title(sheet: Sheet, kind: str, share: float) -> float:
    """Place a title in a share of the pages.

    Returns:
        Height at which the rest of the page begins.
    """
    rng = sheet.rng
    if rng.random() >= share:
        return sheet.margin
    title = rng.choice(TITLES[kind])
    if rng.random() < 0.3 and " " not in title:
        longer = f"{title} {draw_value(rng, 'name', sheet.split)}"
        title = longer if sheet.head.width(longer) < sheet.width - 2 * sheet.margin else title
    first = title.split()[0].lower()
    spelled = (first,) if first in _WORDS and " " not in title else ()
    align = rng.choice(("left", "centre", "right"))
    x = {"left": sheet.margin, "centre": sheet.width / 2, "right": sheet.width - sheet.margin}[align]
    middle = sheet.margin + sheet.pitch / 2
    colour = sheet.accent if rng.random() < 0.5 else sheet.ink
    if sheet.head.width(title) > sheet.width - 2 * sheet.margin:
        return sheet.margin
    if rng.random() < 0.25:
        sheet.draw("rectangle", [(0, 0), (sheet.width, sheet.margin + sheet.pitch)], fill=sheet.accent)
        colour = (250, 250, 250)
    sheet.text(x, middle, title, "other", spelled, face=sheet.head, colour=colour, align=align)
    return sheet.margin + sheet.pitch * (1.0 + 0.3 * rng.random())


def filler_line(sheet: Sheet, width: float) -> str:
    """Return random words that fit a width, "" if none does."""
    line = ""
    for _ in range(12):
        word = sheet.rng.choice(FILLER)
        longer = f"{line} {word}" if line else word.capitalize()
        if sheet.body.width(longer) > width:
            break
        line = longer
    return line


def _stamp(sheet: Sheet, low: float, high: float) -> None:
    """Draw a stamp into a free band."""
    rng = sheet.rng
    text, colour = rng.choice(STAMPS), rng.choice(((190, 40, 40), (40, 70, 170), (30, 130, 80)))
    half = sheet.head.width(text) / 2 + 14
    if 2 * half > sheet.width - 2 * sheet.margin:
        return
    x = rng.uniform(sheet.margin + half, sheet.width - sheet.margin - half)
    tall = 0.75 * sheet.pitch
    y = rng.uniform(low + tall, high - tall)
    for inset in (0.0, 3.5):
        box = [(x - half + inset, y - tall + inset), (x + half - inset, y + tall - inset)]
        sheet.draw(rng.choice(("rectangle", "rectangle", "ellipse")), box, outline=colour, width=1.5)
    sheet.text(x, y, text, "other", face=sheet.head, colour=colour, align="centre")


def add_filler(sheet: Sheet, taken: Sequence[tuple[float, float]], share: float = 0.4) -> None:
    """Write a paragraph into the largest free band of a page, in a share of the pages that have one.

    Args:
        sheet: The page.
        taken: Bands (from, to) that hold something.
        share: Share of the pages.
    """
    rng = sheet.rng
    if rng.random() >= share:
        return
    # The boxes of everything placed so far, for example the title, are bands, too.
    bands = [*taken, *((float(r.boxes[0, 1]) / sheet.unit, float(r.boxes[0, 3]) / sheet.unit) for r in sheet.runs)]
    edges, y = [], sheet.margin
    for low, high in sorted(bands):
        edges.append((y, low))
        y = max(y, high)
    edges.append((y, sheet.height - sheet.margin))
    low, high = max(edges, key=lambda band: band[1] - band[0])
    lines = min(int((high - low - 12) // sheet.pitch), rng.randint(1, 4))
    if lines < 1:
        return
    if lines > 1 and rng.random() < 0.2:
        _stamp(sheet, low + 6, high - 6)
        return
    width = (sheet.width - 2 * sheet.margin) * rng.uniform(0.5, 1.0)
    y = low + 6 + rng.uniform(0, high - low - 12 - lines * sheet.pitch)
    for i in range(lines):
        if line := filler_line(sheet, width):
            sheet.text(sheet.margin, y + (i + 0.5) * sheet.pitch, line, "other")
