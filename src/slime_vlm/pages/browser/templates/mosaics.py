"""Pages without a plan: blocks of all kinds in columns and boxes at random, so that no layout is learnt by heart."""

from __future__ import annotations

from slime_vlm.pages.browser.blocks import (
    address_lines,
    addressee,
    company,
    items,
    letterhead,
    logo,
    pairs,
    prose,
    row_names,
    section_title,
    table,
    text,
    totals,
)
from slime_vlm.pages.browser.draft import Draft
from slime_vlm.pages.browser.templates.registry import A4, A5, LETTER, NO_KIND, SCREEN, Layout, template
from slime_vlm.pages.browser.thesaurus import concepts

_AREAS = ("any", "letter", "pay", "event", "lab", "tech")
_KINDS = ("money", "integer", "count", "percent", "date", "time", "code", "measure", "person", "place", "word", "state")
_TITLES = (
    "Overview",
    "Record",
    "Summary",
    "Details",
    "Notice",
    "File",
    "Extract",
    "Confirmation",
    "Survey",
    "Return",
    "Certificate",
    "Report",
)


def _style(draft: Draft) -> str:
    """Draw sizes, alignment and margins of a block."""
    rng = draft.rng
    parts = [f"padding:{rng.choice((0, 0, 2, 4, 8))}px {rng.choice((0, 0, 4, 10, 24))}px"]
    if rng.random() < 0.3:
        parts.append(f"font-size:{rng.choice((0.8, 0.85, 0.9, 1.1, 1.2, 1.35)):.2f}em")
    if rng.random() < 0.2:
        parts.append(f"text-align:{rng.choice(('right', 'center', 'center'))}")
    if rng.random() < 0.25:
        parts.append(f"line-height:{rng.choice((1.05, 1.2, 1.8, 2.1)):.2f}")
    if rng.random() < 0.15:
        parts.append(f"letter-spacing:{rng.choice((0.3, 0.6, 1.2)):.1f}px")
    if rng.random() < 0.25:
        parts.append(f"max-width:{rng.choice((16, 22, 30, 45))}em")
    return ";".join(parts)


def _block(draft: Draft) -> str:
    rng = draft.rng
    name, head = section_title(draft, rng.choice(("h2", "h3", "h4", "h4"))) if rng.random() < 0.5 else ("", "")
    form = rng.choices(
        ("pairs", "table", "goods", "text", "prose", "address", "list"), (0.42, 0.2, 0.05, 0.15, 0.06, 0.06, 0.06)
    )[0]
    if form == "pairs":
        known = rng.sample(sorted(concepts(draft.split)), 6)
        inner = pairs(draft, draft.fields(known, 1, 8, section=name, invented=0.4))
    elif form == "table":
        kinds = rng.sample(_KINDS, rng.randint(1, 4))
        columns = [(draft.open_key(), "word"), *((draft.open_key(), kind) for kind in kinds)]
        rows = [[one, *(draft.value(kind) for kind in kinds)] for one in row_names(draft, rng.randint(2, 8), 2)]
        inner = table(draft, columns, rows)
    elif form == "goods":
        goods, cents = items(draft, 2, 5)
        inner = goods + pairs(draft, totals(draft, cents))
    elif form == "text":
        inner = text(draft, rng.choice(_AREAS), rng.randint(1, 3), rng.randint(0, 3))
    elif form == "prose":
        inner = prose(draft, rng.randint(1, 5))
    elif form == "address":
        inner = addressee(draft) if rng.random() < 0.5 else f"<div>{company(draft)}{address_lines(draft)}</div>"
    else:
        inner = "".join(f"<li>{prose(draft, 1)}</li>" for _ in range(rng.randint(2, 4)))
        inner = f"<ol>{inner}</ol>"
    frame = rng.choice(("", "", "", "soft", "box", "small", "muted"))
    return f"<div class='{frame}' style='{_style(draft)}'>{head}{inner}</div>"


def _group(draft: Draft, depth: int, count: int) -> str:
    """Arrange blocks one below the other, or side by side in columns of unequal width."""
    rng = draft.rng
    if depth == 0 or count == 1:
        return "".join(_block(draft) for _ in range(count))
    parts, left = [], count
    while left:
        size = min(left, rng.randint(1, 3))
        left -= size
        if size == 1 or rng.random() < 0.35:
            parts.append(_group(draft, 0, size))
            continue
        # Columns that are too narrow for their words would overlap: they go below instead.
        columns = [
            f"<div style='flex:{rng.choice((1, 1, 1, 1.5, 2, 3))} 1 min-content'>"
            f"{_group(draft, depth - 1, rng.randint(1, 2))}</div>"
            for _ in range(size)
        ]
        gap = rng.choice((4, 10, 20, 40))
        parts.append(f"<div style='display:flex;flex-wrap:wrap;gap:{gap}px'>{''.join(columns)}</div>")
    return "".join(f"<div style='margin-bottom:{rng.choice((0, 4, 10, 20))}px'>{part}</div>" for part in parts)


def _head(draft: Draft) -> str:
    rng = draft.rng
    form = rng.randrange(7)
    if form == 0:
        return ""
    title = draft.title(f"{draft.open_key()} {rng.choice(_TITLES).lower()}" if rng.random() < 0.6 else draft.open_key())
    if form == 5:
        return letterhead(draft) + title
    if form == 1:
        return f"<div class='row'>{title}{logo(draft)}</div>"
    if form == 2:
        return f"<div class='band'>{title}</div>"
    if form == 3:
        return f"<div class='centre'>{title}<div>{company(draft)}</div></div>"
    if form == 4:
        return (
            f"<div class='row'><div>{company(draft)}{address_lines(draft)}</div><div class='right'>{title}</div></div>"
        )
    return title


@template(NO_KIND)
def mosaic_sheet(draft: Draft) -> Layout:
    """A sheet of paper: a head, and blocks in columns that change on the way down."""
    rng = draft.rng
    size = rng.choice((A4, A4, LETTER, A5))
    body = _group(draft, 2, rng.randint(2, 4) if size == A5 else rng.randint(3, 7))
    return Layout(_head(draft) + body, size, rng.choice((8.0, 12.0, 16.0, 22.0)))


@template(NO_KIND)
def mosaic_screen(draft: Draft) -> Layout:
    """The same on a screen."""
    return Layout(_head(draft) + _group(draft, 2, draft.rng.randint(2, 5)), SCREEN, 8.0)
