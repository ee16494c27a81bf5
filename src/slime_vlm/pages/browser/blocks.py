"""Building blocks of documents: arrangements of keys and values, tables, letterheads, charts, running text."""

from __future__ import annotations

import html
from collections.abc import Sequence

from slime_vlm.pages.browser.draft import Draft, Fact, Field
from slime_vlm.pages.browser.sentences import filler, sentences
from slime_vlm.pages.browser.values import amount
from slime_vlm.pages.splits import is_heldout_key
from slime_vlm.pages.word_lists import listed

CSS = """
section.d{box-sizing:border-box;position:relative;break-after:page;-webkit-print-color-adjust:exact;
font-variant-ligatures:none;overflow-wrap:break-word}
section.d *{box-sizing:border-box}
a{color:inherit;text-decoration:none}
h1,h2,h3,h4{font-family:var(--head);color:var(--accent);line-height:1.15;margin:0 0 .5em}
h1{font-size:2em}h2{font-size:1.35em}h3{font-size:1.1em}h4{font-size:1em}
p{margin:0 0 .7em}
.head{font-family:var(--head)}
.accent{color:var(--accent)}
.row{display:flex;gap:1.2em;justify-content:space-between;align-items:flex-start}
.row>*{min-width:0}
.col{display:flex;flex-direction:column;gap:.8em}
.grow{flex:1}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1.2em}
.three{display:grid;grid-template-columns:1fr 1fr 1fr;gap:1em}
.right{text-align:right}.centre{text-align:center}
.small{font-size:.82em}.large{font-size:1.3em}.huge{font-size:1.9em;line-height:1.1}
.muted{opacity:.72}
.band{background:var(--accent);color:#fff;padding:.8em 1em}
.band h1,.band h2,.band h3{color:#fff;margin:0}
.soft{background:var(--soft);padding:.7em .9em;border-radius:var(--radius)}
.box{border:1px solid var(--rule);padding:.7em .9em;border-radius:var(--radius)}
.rule{border:0;border-top:1px solid var(--rule);margin:.7em 0}
.thick{border:0;border-top:3px solid var(--accent);margin:.6em 0}
.gap{height:1.1em}
.hand{font-family:var(--hand)}
table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.22em .6em;font-weight:inherit}
table.full{width:100%}
.p-table td:first-child{padding-left:0;white-space:nowrap}
.p-ruled{width:100%}.p-ruled td{border-bottom:1px solid var(--rule)}.p-ruled td:last-child{text-align:right}
.p-zebra{width:100%}.p-zebra tr:nth-child(odd){background:var(--soft)}
.p-grid{display:grid;gap:.7em 1.4em}
.p-grid .k,.p-cards .k,.p-boxed .k,.p-under .k,.p-reversed .k{display:block;font-size:.78em;opacity:.85}
.p-boxed{display:grid;border-top:1px solid var(--rule);border-left:1px solid var(--rule)}
.p-boxed>div{border-right:1px solid var(--rule);border-bottom:1px solid var(--rule);padding:.25em .5em .4em}
.p-leaders>div{display:flex;align-items:baseline;gap:.3em}
.p-leaders i{flex:1;border-bottom:1px dotted currentColor;min-width:1.5em}
.p-under{display:grid;gap:.7em 1.5em}
.p-under>div{border-bottom:1px solid var(--ink)}
.p-under .v{min-height:1.3em;display:inline-block}
.p-line>div{border-bottom:1px solid var(--rule);display:flex;gap:.6em;padding:.25em 0}
.p-line .v{flex:1;border:0}
.p-cards{display:grid;gap:.8em}
.p-cards>div{border:1px solid var(--rule);border-radius:calc(var(--radius) + 3px);padding:.6em .8em;background:#fff}
.p-cards .v{font-size:1.3em}
.p-reversed{display:grid;gap:.9em 1.4em}
.p-reversed .v{font-size:1.15em;display:block}
.t-lines{width:100%}.t-lines th{border-bottom:2px solid var(--accent)}.t-lines td{border-bottom:1px solid var(--rule)}
.t-grid{width:100%}.t-grid td,.t-grid th{border:1px solid var(--rule)}
.t-zebra{width:100%}.t-zebra tr:nth-child(even){background:var(--soft)}.t-zebra th{color:var(--accent)}
.t-plain{width:100%}
.t-band{width:100%}.t-band th{background:var(--accent);color:#fff}.t-band td{border-bottom:1px solid var(--rule)}
.t-rules{width:100%;border-top:2px solid var(--ink);border-bottom:2px solid var(--ink)}
.t-rules th{border-bottom:1px solid var(--ink)}
.t-columns{width:100%;border:1px solid var(--rule)}.t-columns td,.t-columns th{border-right:1px solid var(--rule)}
.t-columns th{border-bottom:1px solid var(--rule);background:var(--soft)}
.t-dotted{width:100%}.t-dotted td{border-bottom:1px dotted var(--ink)}.t-dotted th{font-style:italic}
.pill{display:inline-block;background:var(--soft);border-radius:2em;padding:.1em .8em}
.button{display:inline-block;background:var(--accent);color:#fff;border-radius:var(--radius);padding:.4em 1.1em}
.bars{display:inline-block;height:3em;width:14em;
background:repeating-linear-gradient(90deg,#000 0 2px,#fff 2px 3px,#000 3px 4px,
#fff 4px 7px,#000 7px 10px,#fff 10px 12px)}
.tick{display:inline-block;width:.9em;height:.9em;border:1px solid var(--ink);vertical-align:-.1em;margin-right:.4em}
.tick.on{background:var(--ink)}
.switch{display:inline-block;width:2.2em;height:1.1em;border-radius:1em;background:#bbb;vertical-align:-.2em}
.switch.on{background:var(--accent)}
svg text{fill:currentColor}
"""

_ARRANGEMENTS = {
    "train": (
        "table",
        "table",
        "ruled",
        "zebra",
        "inline",
        "grid2",
        "grid3",
        "boxed2",
        "boxed3",
        "leaders",
        "stacked",
        "under2",
    ),
    "heldout": ("cards2", "reversed3", "line", "table-right", "under3", "boxed4"),
}
_TABLES = {
    "train": ("lines", "grid", "zebra", "plain", "band", "rules"),
    "heldout": ("columns", "dotted"),
}


def pairs(draft: Draft, fields: Sequence[Field], how: str = "", only: Sequence[str] = ()) -> str:
    """Arrange keys and values.

    Args:
        draft: The document.
        fields: What to arrange.
        how: Name of an arrangement, drawn for the split without one.
        only: Arrangements to draw from; those of the split that are among them, all of the split if none is.
    """
    if not fields:
        return ""
    if not how:
        own = _ARRANGEMENTS[draft.split]
        how = draft.rng.choice([name for name in own if name.rstrip("234") in only] or own)
    colon = draft.theme.colon
    name, columns = how.rstrip("234"), how[-1] if how[-1] in "234" else "2"
    if name in ("table", "ruled", "zebra", "table-right"):
        side = " style='text-align:right'" if name == "table-right" else ""
        inner = "".join(f"<tr><td{side}>{f.key}{colon}</td><td>{f.value}</td></tr>" for f in fields)
        return f"<table class='p-{name.split('-')[0]}'>{inner}</table>"
    if name == "inline":
        return "".join(f"<div>{f.key}{colon or ':'} {f.value}</div>" for f in fields)
    if name == "leaders":
        return "<div class='p-leaders'>" + "".join(f"<div>{f.key}<i></i>{f.value}</div>" for f in fields) + "</div>"
    if name == "stacked":
        return "".join(f"<div>{f.key}{colon if colon == ':' else ''}</div><p>{f.value}</p>" for f in fields)
    if name == "line":
        return "<div class='p-line'>" + "".join(f"<div>{f.key}{colon}{f.value}</div>" for f in fields) + "</div>"
    style = f"style='grid-template-columns:repeat({columns},1fr)'"
    if name == "reversed":
        inner = "".join(f"<div>{f.value}{f.key}</div>" for f in fields)
    else:
        inner = "".join(f"<div>{f.key}{f.value}</div>" for f in fields)
    return f"<div class='p-{name}' {style}>{inner}</div>"


def heading(draft: Draft, options: str) -> str:
    """Draw a heading of a column or section that the split may print; an invented one where there is none."""
    allowed = [key for key in listed(options, ";") if is_heldout_key(key) == (draft.split == "heldout")]
    return draft.rng.choice(allowed) if allowed else draft.open_key()


def table(
    draft: Draft, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], style: str = "", head: bool = True
) -> str:
    """Write a table whose first column names the rows; numbers stand on the right."""
    heads, cells = draft.table(columns, rows, head)
    style = style or draft.rng.choice(_TABLES[draft.split])
    numeric = draft.rng.random() < 0.75
    sides = [
        " style='text-align:right'"
        if numeric and i and kind in ("money", "integer", "count", "percent", "measure")
        else ""
        for i, (_, kind) in enumerate(columns)
    ]
    top = "<tr>" + "".join(f"<th{side}>{text}</th>" for text, side in zip(heads, sides, strict=True)) + "</tr>"
    body = "".join(
        "<tr>" + "".join(f"<td{side}>{text}</td>" for text, side in zip(row, sides, strict=True)) + "</tr>"
        for row in cells
    )
    return f"<table class='t-{style}'>{top if head else ''}{body}</table>"


def row_names(draft: Draft, count: int, longest: int = 3) -> list[str]:
    """Make different names of things: goods, tests, stops, parts."""
    names: list[str] = []
    while len(names) < count:
        name = " ".join(draft.words.word(draft.rng) for _ in range(draft.rng.randint(1, longest)))
        if draft.rng.random() < 0.15:
            name += draft.rng.choice(
                (" 500 g", " L", " XL", " 2", " No. 4", " (set)", " 1/2", ", large", " A4", " 10 mm")
            )
        name = name.title() if draft.rng.random() < 0.3 else name.capitalize()
        if name not in names:
            names.append(name)
    return names


_NAME_HEADS = "Item;Description;Article;Product;Service;Position;Details;Goods;Work done;What;Designation;Particulars"
_QUANTITY_HEADS = "Qty;Quantity;Pcs;Units;No.;Count;Qty.;Hours;Amount;Pieces;Number"
_PRICE_HEADS = "Price;Unit price;Rate;Each;Price each;Per unit;Cost;Unit cost"
_SUM_HEADS = "Total;Amount;Line total;Sum;Net;Value;Net amount;Charge;Extended"
_CODE_HEADS = "Code;SKU;Art. no.;Item no.;Part no.;Ref;No."
_ADDRESSEE_HEADS = "Bill to;To;Invoice to;Sold to;Customer;Recipient;Billed to;Client;Deliver to;Attention"
_RATE_HEADS = "VAT;Tax;VAT %;Tax rate;Rate %;Disc."


def items(draft: Draft, least: int, most: int, layout: str = "") -> tuple[str, int]:
    """Write a table of goods with quantities and prices.

    Args:
        draft: The document.
        least: Fewest rows.
        most: Most rows.
        layout: Letters of the columns: n name, q quantity, p price, s sum, c code, r rate; drawn without it.

    Returns:
        HTML and the sum in cents.
    """
    rng = draft.rng
    layout = layout or rng.choice(("nqps", "nqps", "nps", "ns", "cnqps", "nqprs", "qnps", "ncqps"))
    names = row_names(draft, rng.randint(least, most))
    quantities = [rng.choice((1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 25)) for _ in names]
    prices = [rng.randrange(50, 10 ** rng.choice((4, 4, 5))) for _ in names]
    sums = [quantity * price for quantity, price in zip(quantities, prices, strict=True)]
    heads = {
        "n": (_NAME_HEADS, "word"),
        "q": (_QUANTITY_HEADS, "count"),
        "p": (_PRICE_HEADS, "money"),
        "s": (_SUM_HEADS, "money"),
        "c": (_CODE_HEADS, "code"),
        "r": (_RATE_HEADS, "percent"),
    }
    # The first column names the rows; where a code or quantity stands before, it is written in its place all the same.
    order = "n" + layout.replace("n", "")
    taken: set[str] = set()
    columns = []
    for letter in order:
        options, kind = heads[letter]
        head = heading(draft, options)
        while head in taken:
            head = draft.open_key()
        taken.add(head)
        columns.append((head, kind))
    signed = rng.random() < 0.5
    texts = {
        "n": names,
        "q": [str(quantity) for quantity in quantities],
        "p": [amount(rng, draft.manner, price, signed) for price in prices],
        "s": [amount(rng, draft.manner, total, signed) for total in sums],
        "c": [draft.value("code") for _ in names],
        "r": [rng.choice(("5%", "7%", "10%", "19%", "20%", "0%")) for _ in names],
    }
    rows = [[texts[letter][i] for letter in order] for i in range(len(names))]
    return table(draft, columns, rows), sum(sums)


def totals(draft: Draft, cents: int, names: Sequence[str] = ()) -> list[Field]:
    """State subtotal, tax, extras and total of a sum in cents."""
    rng, manner = draft.rng, draft.manner
    tax = round(cents * rng.choice((0.05, 0.07, 0.08, 0.1, 0.19, 0.2, 0.21)))
    extra = rng.randrange(100, 3000)
    wanted = list(names) or rng.choice(
        (
            ["subtotal", "tax", "total"],
            ["subtotal", "tax", "shipping", "total"],
            ["total"],
            ["subtotal", "tax", "amount_due"],
        )
    )
    value = {"subtotal": cents, "tax": tax, "shipping": extra, "discount": extra, "total": cents + tax}
    value["total"] += extra if "shipping" in wanted else 0
    value["total"] -= extra if "discount" in wanted else 0
    value["amount_due"] = value["total"]
    value["paid"] = value["total"] - value["total"] % 500 + 500
    value["change"] = value["paid"] - value["total"]
    fields = [draft.field(name, value=amount(rng, manner, value[name])) for name in wanted]
    return [one for one in fields if one is not None]


def company(draft: Draft) -> str:
    """State the firm that a document comes from: HTML of its name."""
    return draft.named("issuer", draft.value("company"))


def address_lines(draft: Draft) -> str:
    """Write an address on lines of its own."""
    street, town = draft.value("street"), f"{draft.value('postcode')} {draft.value('place')}"
    return f"<div>{html.escape(street)}</div><div>{html.escape(town)}</div>"


def logo(draft: Draft, size: int = 44) -> str:
    """Draw a simple emblem in the accent colour."""
    rng = draft.rng
    shapes = (
        "<circle cx=24 cy=24 r=20 fill='var(--accent)'/><circle cx=24 cy=24 r=9 fill='#fff'/>",
        "<rect x=4 y=4 width=40 height=40 rx=8 fill='var(--accent)'/><path d='M12 34L24 12L36 34Z' fill='#fff'/>",
        "<path d='M24 2L46 24L24 46L2 24Z' fill='var(--accent)'/>",
        "<path d='M4 40L18 8L26 26L34 14L44 40Z' fill='var(--accent)'/>",
        "<rect x=4 y=20 width=10 height=24 fill='var(--accent)'/><rect x=19 y=10 width=10 height=34 "
        "fill='var(--accent)'/>"
        "<rect x=34 y=2 width=10 height=42 fill='var(--accent)'/>",
        "<circle cx=18 cy=24 r=14 fill='var(--accent)'/><circle cx=32 cy=24 r=14 fill='var(--accent)' opacity='.5'/>",
    )
    return f"<svg width={size} height={size} viewBox='0 0 48 48'>{rng.choice(shapes)}</svg>"


def letterhead(draft: Draft, contacts: int = 3) -> str:
    """Write the head of a firm's paper: name, address, ways to reach it."""
    rng = draft.rng
    name = f"<div class='head accent large'>{company(draft)}</div>"
    ways = draft.fields(["phone", "email", "website", "fax", "tax_id"], min(1, contacts), contacts, invented=0)
    reach = pairs(draft, ways, "inline")
    place = address_lines(draft)
    form = rng.randrange(5)
    if form == 0:
        return f"<div class='row'><div>{logo(draft)}</div><div class='right'>{name}{place}{reach}</div></div>"
    if form == 1:
        return f"<div class='centre'>{name}<div class='small'>{place}{reach}</div></div><hr class='rule'>"
    if form == 2:
        return (
            f"<div class='row'><div class='row'>{logo(draft)}<div>{name}{place}</div></div><div class='small "
            f"right'>{reach}</div></div>"
        )
    if form == 3:
        return (
            f"<div class='row' style='border-bottom:2px solid var(--accent);padding-bottom:.6em'><div>{name}"
            f"</div><div class='small'>{place}</div><div class='small'>{reach}</div></div>"
        )
    return f"<div>{name}<div class='small muted'>{place}</div>{reach}</div>"


def addressee(draft: Draft, headed: bool = True) -> str:
    """Write to whom a document goes."""
    head = ""
    if headed:
        caption = draft.theme.write_key(heading(draft, _ADDRESSEE_HEADS))
        head = f"<div class='small muted'>{html.escape(caption)}</div>"
    name = draft.named("recipient", draft.value(draft.rng.choice(("person", "person", "company"))))
    return f"<div>{head}<div>{name}</div>{address_lines(draft)}</div>"


def text(draft: Draft, area: str, facts: int, fillers: int) -> str:
    """Write a paragraph of sentences that state something among others that do not.

    A page has no sentence twice, nor two that answer the same question.
    """
    rng = draft.rng
    pool = sentences(draft.split, area)
    chosen: list[str] = []
    for one in rng.sample(pool, min(2 * facts, len(pool))):
        if len(chosen) < facts and draft.said.isdisjoint((one.plain, *one.questions)):
            chosen.append(draft.sentence(one))
    chosen += [html.escape(filler(rng, draft.words)) for _ in range(fillers)]
    rng.shuffle(chosen)
    return f"<p>{' '.join(chosen)}</p>"


def prose(draft: Draft, lines: int) -> str:
    """Write a paragraph that nothing is asked about."""
    return f"<p>{' '.join(html.escape(filler(draft.rng, draft.words)) for _ in range(lines))}</p>"


def section_title(draft: Draft, tag: str = "h2") -> tuple[str, str]:
    """Make a section's heading: its text and its HTML."""
    name = draft.open_key()
    return name, f"<{tag}>{draft.mark(name)[1]}</{tag}>"


def signature(draft: Draft) -> str:
    """Write a line to sign on, signed in the hand of the theme."""
    rng = draft.rng
    name = draft.value("person")
    under = rng.choice(("Signature", "Signed", "Date, signature", "Authorised signature", "For the company"))
    return (
        f"<div style='width:16em'><div class='hand large'>{html.escape(name)}</div><hr class='rule'><div "
        f"class='small'>{under}</div></div>"
    )


def chart(draft: Draft, width: int = 420, height: int = 220, form: str = "") -> str:
    """Draw a chart with printed values: bars upright or lying, a line, or a ring with a legend."""
    rng = draft.rng
    form = form or rng.choice(("bars", "bars", "lying", "line", "ring"))
    count = rng.randint(3, 7)
    months = listed("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
    start = rng.randrange(6)
    names = months[start : start + count] if rng.random() < 0.4 else [name[:14] for name in row_names(draft, count, 1)]
    names = list(dict.fromkeys(names))
    numbers = rng.sample(range(5, rng.choice((99, 400, 5000))), len(names))
    unit = rng.choice(("", "", "%", "k")) if form != "ring" else ""
    labels = [f"{number}{unit}" for number in numbers]
    top = max(numbers)
    parts: list[str] = []
    shades = ("var(--accent)", "#8a8f98", "#d9a441", "#5b8def", "#57a773", "#c25e5e", "#9b72cf")

    def state(i: int, name_style: str, value_style: str) -> None:
        key, key_html = draft.mark(names[i])
        value, value_html = draft.mark(labels[i])
        draft.facts.append(Fact("chart", labels[i], "integer", value, (key,), phrase=names[i]))
        parts.append(f"<text {name_style}>{key_html}</text><text {value_style}>{value_html}</text>")

    for i, number in enumerate(numbers):
        share = number / top
        if form == "bars":
            step = width / len(names)
            x, tall = i * step + step * 0.15, share * (height - 50)
            parts.append(
                f"<rect x={x:.0f} y={height - 24 - tall:.0f} width={step * 0.7:.0f} height={tall:.0f} "
                "fill='var(--accent)'/>"
            )
            middle = f"x={x + step * 0.35:.0f} text-anchor='middle'"
            state(i, f"{middle} y={height - 8}", f"{middle} y={height - 30 - tall:.0f}")
        elif form == "lying":
            step = height / len(names)
            y, long = i * step + step * 0.2, share * (width - 190)
            parts.append(f"<rect x=120 y={y:.0f} width={long:.0f} height={step * 0.6:.0f} fill='var(--accent)'/>")
            base = y + step * 0.3 + 5
            state(i, f"x=112 y={base:.0f} text-anchor='end'", f"x={126 + long:.0f} y={base:.0f}")
        elif form == "line":
            x, y = 24 + i * (width - 60) / max(1, len(names) - 1), height - 30 - share * (height - 60)
            if i:
                last = numbers[i - 1] / top
                before = 24 + (i - 1) * (width - 60) / max(1, len(names) - 1)
                parts.append(
                    f"<path d='M{before:.0f} {height - 30 - last * (height - 60):.0f}L{x:.0f} {y:.0f}' "
                    "stroke='var(--accent)' stroke-width=2 fill='none'/>"
                )
            parts.append(f"<circle cx={x:.0f} cy={y:.0f} r=4 fill='var(--accent)'/>")
            middle = f"x={x:.0f} text-anchor='middle'"
            state(i, f"{middle} y={height - 8}", f"{middle} y={y - 9:.0f}")
        else:
            y = 28 + i * 26
            parts.append(f"<rect x=230 y={y - 12} width=13 height=13 fill='{shades[i % len(shades)]}'/>")
            state(i, f"x=250 y={y}", f"x={width - 6} y={y} text-anchor='end'")
    if form == "ring":
        around, at = 2 * 3.14159 * 70, 0.0
        for i, number in enumerate(numbers):
            part = number / sum(numbers) * around
            parts.append(
                f"<circle cx=105 cy=105 r=70 fill='none' stroke='{shades[i % len(shades)]}' stroke-width=34 "
                f"stroke-dasharray='{part:.1f} {around - part:.1f}' stroke-dashoffset='{-at:.1f}'/>"
            )
            at += part
    elif form != "lying":
        parts.append(f"<path d='M0 {height - 24}H{width}' stroke='var(--rule)'/>")
    return f"<svg width={width} height={height} style='max-width:100%;font-size:11pt'>{''.join(parts)}</svg>"


def extras(draft: Draft) -> str:
    """Write what fills the rest of a sheet of paper: terms, remarks, a small table, further particulars."""
    rng = draft.rng
    parts = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        form = rng.randrange(5)
        name, head = section_title(draft, rng.choice(("h3", "h4", "h4")))
        if form == 0:
            inner = "".join(prose(draft, rng.randint(3, 6)) for _ in range(rng.randint(1, 3)))
            parts.append(f"<div class='small' style='columns:{rng.choice((1, 2, 2))}'>{head}{inner}</div>")
        elif form == 1:
            parts.append(head + text(draft, rng.choice(("any", "letter", "pay")), 2, rng.randint(2, 5)))
        elif form == 2:
            parts.append(head + pairs(draft, draft.fields([None] * 8, 3, 8, section=name)))
        elif form == 3:
            kinds = rng.sample(("measure", "integer", "date", "word", "code", "percent"), rng.randint(1, 3))
            columns = [(draft.open_key(), "word"), *((draft.open_key(), kind) for kind in kinds)]
            rows = [[one, *(draft.value(kind) for kind in kinds)] for one in row_names(draft, rng.randint(3, 9), 2)]
            parts.append(head + table(draft, columns, rows))
        else:
            points = "".join(f"<li>{html.escape(filler(rng, draft.words))}</li>" for _ in range(rng.randint(3, 6)))
            parts.append(f"{head}<ul>{points}</ul>")
    return "".join(f"<div style='margin-top:1.4em'>{part}</div>" for part in parts)


def footer(draft: Draft) -> str:
    """Write the foot of a sheet: a page number, small print."""
    rng = draft.rng
    page = rng.choice(("Page 1 of 1", "Page 1", "1 / 2", "1", "- 1 -", ""))
    print_ = " · ".join(
        html.escape(draft.value(rng.choice(("url", "code", "phone", "place")))) for _ in range(rng.randint(1, 3))
    )
    return (
        "<div class='small muted row' style='position:absolute;left:14mm;right:14mm;bottom:6mm'>"
        f"<div>{print_ if rng.random() < 0.7 else ''}</div><div>{page}</div></div>"
    )
