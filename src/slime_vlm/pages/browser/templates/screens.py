"""Slides, settings, web pages and dashboards."""

from __future__ import annotations

import html

from slime_vlm.pages.browser.blocks import (
    chart,
    company,
    heading,
    logo,
    pairs,
    prose,
    row_names,
    section_title,
    table,
    text,
)
from slime_vlm.pages.browser.draft import Draft
from slime_vlm.pages.browser.templates.registry import PHONE, SCREEN, SLIDE, Layout, template

_DEVICE = ["language", "network", "battery", "storage", "version", "ip_address", "username", "status"]
_MATCH = ["price", "duration", "rating", "departure_time", "arrival_time", "stock"]
_FIGURES = ["visitors", "total", "conversion", "growth", "stock", "attendance", "budget", "employees", "score"]


def _rows(draft: Draft, count: int, switches: float) -> str:
    """Write settings as rows: name on the left, state on the right, a switch beside some."""
    parts = []
    for _ in range(count):
        name = draft.rng.choice(_DEVICE) if draft.rng.random() < 0.4 else None
        switch = draft.rng.random() < switches
        state = draft.rng.choice(("On", "Off")) if switch else ""
        field = draft.field(name, kind="state" if name is None else "", value=state if name is None else "")
        if field is None:
            continue
        knob = (
            f"<span class='switch{' on' if field.value_text == 'On' else ''}'></span>"
            if field.value_text in ("On", "Off")
            else "<span class='muted'>&gt;</span>"
        )
        parts.append(
            f"<div class='row' style='padding:.6em 0;border-bottom:1px solid var(--rule)'><div>{field.key}"
            f"</div><div class='muted'>{field.value} {knob}</div></div>"
        )
    return "".join(parts)


def _menu(draft: Draft, names: list[str]) -> str:
    chosen = draft.rng.randrange(len(names))
    return "".join(
        "<div style='padding:.45em .8em;"
        f"{'background:var(--soft);font-weight:bold' if i == chosen else ''}'>{html.escape(name)}</div>"
        for i, name in enumerate(names)
    )


def _bar(draft: Draft) -> str:
    """Write the bar of a browser's window."""
    return (
        "<div style='background:#e4e6ea;padding:.5em 1em;color:#333'><span "
        "style='display:inline-block;width:.7em;height:.7em;border-radius:1em;background:#e0564f'>"
        "</span> <span "
        "style='display:inline-block;width:.7em;height:.7em;border-radius:1em;background:#e6b84c'>"
        "</span> <span style='background:#fff;border-radius:1em;padding:.2em 1.5em;margin-left:1em'>"
        f"{html.escape(draft.value('url'))}</span></div>"
    )


@template("settings")
def settings_window(draft: Draft) -> Layout:
    """A settings window: a list of pages on the left, rows on the right."""
    menu = _menu(draft, row_names(draft, draft.rng.randint(6, 10), 1))
    return Layout(
        "<div style='display:flex;min-height:200mm'><div "
        f"style='width:26%;background:var(--soft);padding:1em 0'>{menu}</div><div "
        f"style='flex:1;padding:1.5em 2em'>{draft.title(' '.join(row_names(draft, 1, 2)))}"
        f"{_rows(draft, draft.rng.randint(6, 11), 0.4)}</div></div>",
        SCREEN,
        0,
    )


@template("settings")
def settings_phone(draft: Draft) -> Layout:
    """Settings on a phone."""
    groups = []
    for _ in range(draft.rng.randint(2, 3)):
        _, head = section_title(draft, "h4")
        groups.append(
            f"{head}<div class='box' style='background:#fff'>{_rows(draft, draft.rng.randint(2, 4), 0.6)}</div>"
        )
    title2 = draft.title(draft.rng.choice(("Settings", "Preferences", "Options", "Device")))
    return Layout(
        f"<div class='row small'><b>{html.escape(draft.value('time'))}</b><span>"
        f"{html.escape(draft.value('percent'))}</span></div>{title2}<div class='col'>{''.join(groups)}"
        "</div>",
        PHONE,
        6,
    )


@template("settings", heldout=True)
def dialog(draft: Draft) -> Layout:
    """A dialog over a dimmed window: fields in boxes, two buttons."""
    fields = draft.fields([*_DEVICE, None, None, None], 4, 7)
    inner = "".join(
        f"<div style='margin:.6em 0'>{f.key}<div style='border:1px solid "
        f"#999;background:#fff;padding:.3em .6em;border-radius:var(--radius)'>{f.value}</div></div>"
        for f in fields
    )
    title2 = draft.title(" ".join(row_names(draft, 1)), "h3")
    wording = draft.rng.choice(("OK", "Save", "Apply", "Continue"))
    return Layout(
        "<div style='background:#9aa3ad;min-height:211mm;padding:18mm 70mm'><div "
        f"style='background:#f6f6f6;padding:1.3em;border-radius:8px'>{title2}{prose(draft, 1)}{inner}<div "
        "class='right'><span class='button' style='background:#ccc;color:#222'>"
        f"{draft.rng.choice(('Cancel', 'Close', 'Back'))}</span> <span class='button'>{wording}</span></div>"
        "</div></div>",
        SCREEN,
        0,
    )


@template("settings")
def properties_table(draft: Draft) -> Layout:
    """Properties of a file or a device as a table."""
    title2 = draft.title(draft.rng.choice(("Properties", "System information", "About this device", "Details")), "h2")
    particulars = pairs(
        draft, draft.fields([*_DEVICE, "serial_number", "article_number", "temperature", "speed"], 7, 12)
    )
    return Layout(
        f"<div class='row'>{title2}{logo(draft)}</div>{particulars}",
        (180, 160),
        8,
        crop=True,
    )


@template("web page")
def product_page(draft: Draft) -> Layout:
    """A shop's page of one product."""
    links = " &nbsp; ".join(html.escape(name) for name in row_names(draft, 4, 1))
    more_particulars = pairs(draft, draft.fields(["price"], 1, 1, invented=0), "inline")
    particulars = pairs(
        draft,
        draft.fields(["rating", "stock", "article_number", "delivery_date", "colour", "warranty", "supplier"], 3, 6),
    )
    wording = draft.rng.choice(("Add to basket", "Buy now", "Order"))
    return Layout(
        f"{_bar(draft)}<div style='padding:1.2em 2em'><div class='row'><div class='large accent'>"
        f"{company(draft)}</div><div class='small'>{links}</div></div><hr class='rule'><div class='two'>"
        f"<div class='soft centre' style='height:90mm;padding-top:20mm'>{logo(draft, 160)}</div><div>"
        f"{draft.title(' '.join(row_names(draft, 1)))}<div class='huge'>{more_particulars}</div>{particulars}<div "
        f"class='gap'></div><span class='button'>{wording}</span></div></div>{text(draft, 'tech', 1, 3)}"
        "</div>",
        SCREEN,
        0,
    )


@template("web page")
def article_page(draft: Draft) -> Layout:
    """An article on the web with a column of facts."""
    more_particulars = pairs(draft, draft.fields(["author", "invoice_date"], 1, 2), "inline")
    particulars = pairs(draft, draft.fields([None] * 6, 4, 6), only=("table", "inline", "ruled"))
    return Layout(
        f"{_bar(draft)}<div class='band'>{company(draft)}</div><div style='padding:1.2em "
        "3em;display:grid;grid-template-columns:2fr 1fr;gap:2em'><div>"
        f"{draft.title(draft.value('phrase'))}<div class='small muted'>{more_particulars}</div>"
        f"{text(draft, 'letter', 2, 3)}{text(draft, 'any', 2, 3)}</div><div class='soft'>{particulars}</div>"
        "</div>",
        SCREEN,
        0,
    )


@template("web page", heldout=True)
def profile_page(draft: Draft) -> Layout:
    """A person's page."""
    wording = draft.rng.choice(("Follow", "Message", "Edit"))
    particulars = pairs(
        draft,
        draft.fields(
            ["position", "employer", "city", "birth_date", "phone", "email", "website", "language", "visitors"], 5, 8
        ),
    )
    return Layout(
        f"{_bar(draft)}<div style='padding:1.5em 4em'><div class='row'><svg width=90 height=90><circle "
        "cx=45 cy=45 r=44 fill='var(--soft)'/><circle cx=45 cy=36 r=15 fill='var(--accent)'/><path "
        "d='M15 82Q45 40 75 82Z' fill='var(--accent)'/></svg><div class='grow'>"
        f"{draft.title(draft.value('person'))}{prose(draft, 1)}</div><span class='button'>{wording}</span>"
        f"</div><hr class='rule'>{particulars}<div class='gap'></div>{text(draft, 'letter', 2, 2)}</div>",
        SCREEN,
        0,
    )


@template("web page")
def inbox(draft: Draft) -> Layout:
    """A list of messages."""
    senders = list(dict.fromkeys(draft.value("person") for _ in range(draft.rng.randint(6, 11))))
    rows = [[name, draft.value("phrase"), draft.value("time")] for name in senders]
    menu = _menu(draft, ["Inbox", "Sent", "Drafts", *row_names(draft, 3, 1)])
    title2 = draft.title(draft.rng.choice(("Inbox", "Messages", "Mail")), "h2")
    cells = table(
        draft,
        [
            (heading(draft, "From;Sender;Name;Who"), "person"),
            (heading(draft, "Subject;Topic;About;Title"), "phrase"),
            (heading(draft, "Received;Time;At;Sent"), "time"),
        ],
        rows,
        head=True,
    )
    return Layout(
        f"{_bar(draft)}<div style='display:flex'><div style='width:20%;background:var(--soft)'>{menu}"
        f"</div><div style='flex:1;padding:1em'>{title2}{cells}</div></div>",
        SCREEN,
        0,
    )


@template("web page", heldout=True)
def search_results(draft: Draft) -> Layout:
    """Results of a search for journeys or goods, as cards."""
    cards = []
    for _ in range(draft.rng.randint(3, 4)):
        name, head = section_title(draft, "h3")
        fields = draft.fields(_MATCH, 3, 4, section=name)
        inner = pairs(draft, fields, "reversed3" if draft.split == "heldout" else "grid3")
        cards.append(f"<div class='box' style='margin:.6em 0'>{head}{inner}</div>")
    title2 = draft.title(draft.rng.choice(("Search results", "We found", "Your matches")), "h2")
    return Layout(
        f"{_bar(draft)}<div style='padding:1em 6em'>{title2}{''.join(cards)}</div>",
        SCREEN,
        0,
    )


@template("dashboard")
def dashboard(draft: Draft) -> Layout:
    """Figures in cards above charts."""
    fields = draft.fields(_FIGURES, 3, 6)
    cards = "".join(
        f"<div class='box' style='background:#fff'><div class='small'>{f.key}</div><div class='huge'>"
        f"{f.value}</div></div>"
        for f in fields
    )
    name, head = section_title(draft, "h3")
    _, second = section_title(draft, "h3")
    title2 = draft.title(draft.rng.choice(("Dashboard", "Overview", "Monthly figures", "Sales overview")))
    particulars = pairs(draft, draft.fields([None] * 5, 3, 5, section=name), only=("ruled", "table", "zebra"))
    return Layout(
        f"<div style='background:var(--soft);min-height:205mm;padding:1.5em'><div class='row'>{title2}"
        f"<div>{html.escape(draft.value('date'))}</div></div><div class='three'>{cards}</div><div "
        f"class='gap'></div><div class='two'><div class='box' style='background:#fff'>{head}"
        f"{chart(draft, 420, 200)}</div><div class='box' style='background:#fff'>{second}{particulars}</div>"
        "</div></div>",
        SCREEN,
        0,
    )


@template("dashboard", heldout=True)
def control_panel(draft: Draft) -> Layout:
    """Readings of a plant on a dark panel."""
    fields = draft.fields(
        ["temperature", "pressure", "speed", "humidity", "power", "voltage", "status", "consumption", "battery"], 6, 9
    )
    cells = "".join(
        "<div style='background:#1c2733;border-radius:6px;padding:.8em'><div class='huge' "
        f"style='color:#7fe0b0'>{f.value}</div><div class='small'>{f.key}</div></div>"
        for f in fields
    )
    return Layout(
        "<div "
        "style='background:#0d141b;color:#dbe4ee;--accent:#7fb2ff;--rule:#33414f;min-height:205mm;padding:1.5em'>"
        f"<div class='row'>{draft.title(' '.join(row_names(draft, 1)))}<div>"
        f"{html.escape(draft.value('time'))}</div></div><div class='three'>{cells}</div><div class='gap'>"
        f"</div>{chart(draft, 620, 190, 'line')}</div>",
        SCREEN,
        0,
    )


@template("dashboard")
def report_with_chart(draft: Draft) -> Layout:
    """A page of a report: text, a chart, a table."""
    rows = [
        [name, draft.value("integer"), draft.value("percent")] for name in row_names(draft, draft.rng.randint(3, 7), 2)
    ]
    cells = table(
        draft,
        [
            (heading(draft, "Area;Region;Group;Branch;Unit"), "word"),
            (heading(draft, "Number;Count;Cases;Orders"), "integer"),
            (heading(draft, "Share;Change;Growth;Part"), "percent"),
        ],
        rows,
    )
    return Layout(
        f"{draft.title(draft.value('phrase'))}{text(draft, 'letter', 1, 3)}<div class='centre'>"
        f"{chart(draft, 460, 220)}</div>{cells}<div class='gap'></div>{text(draft, 'any', 2, 2)}",
        (210, 297),
        18,
    )


@template("slide")
def slide_points(draft: Draft) -> Layout:
    """A slide with points, one of which is a fact."""
    points = "".join(
        f"<li style='margin:.5em 0'>{text(draft, draft.rng.choice(('any', 'letter')), 1, 0)[3:-4]}</li>"
        for _ in range(draft.rng.randint(3, 5))
    )
    return Layout(
        f"<div style='font-size:1.5em'>{draft.title(draft.value('phrase'))}<ul>{points}</ul></div><div "
        f"class='small muted' style='position:absolute;bottom:6mm;left:14mm'>{company(draft)}</div><div "
        f"class='small muted' style='position:absolute;bottom:6mm;right:14mm'>{draft.rng.randrange(1, 60)}"
        "</div>",
        SLIDE,
        14,
    )


@template("slide")
def slide_figures(draft: Draft) -> Layout:
    """A slide with large figures."""
    fields = draft.fields(_FIGURES, 3, 4)
    cells = "".join(
        f"<div class='centre'><div style='font-size:3em;line-height:1.2' class='accent'>{f.value}</div>"
        f"<div class='large'>{f.key}</div></div>"
        for f in fields
    )
    return Layout(
        f"<div class='band'>{draft.title(draft.value('phrase'))}</div><div "
        f"style='display:grid;grid-template-columns:1fr 1fr;gap:10mm;padding:12mm'>{cells}</div>",
        SLIDE,
        0,
    )


@template("slide", heldout=True)
def slide_chart(draft: Draft) -> Layout:
    """A slide with a chart and a remark."""
    return Layout(
        f"<div style='font-size:1.3em'>{draft.title(draft.value('phrase'))}<div class='two'><div>"
        f"{chart(draft, 430, 260)}</div><div>{text(draft, 'any', 2, 0)}"
        f"{pairs(draft, draft.fields([None] * 3, 2, 3))}</div></div></div>",
        SLIDE,
        13,
    )


@template("slide")
def slide_title(draft: Draft) -> Layout:
    """A title slide."""
    particulars = pairs(
        draft, draft.fields(["author", "meeting_date", "venue", "event"], 2, 4), only=("inline", "grid")
    )
    return Layout(
        "<div class='band' style='min-height:142mm;padding:35mm 20mm;font-size:1.4em'>"
        f"{draft.title(draft.value('phrase'))}<div class='large'>{particulars}</div><div class='gap'></div>"
        f"{draft.named('issuer', draft.value('company'))}</div>",
        SLIDE,
        0,
    )


@template("slide", heldout=True)
def slide_table(draft: Draft) -> Layout:
    """A slide with a plan."""
    rows = [[name, draft.value("person"), draft.value("date")] for name in row_names(draft, draft.rng.randint(3, 6), 2)]
    title2 = draft.title(draft.rng.choice(("Next steps", "Plan", "Who does what", "Milestones")))
    cells = table(
        draft,
        [
            (heading(draft, "Task;Step;Action;Item"), "word"),
            (heading(draft, "Owner;Who;Lead;Responsible"), "person"),
            (heading(draft, "By;Due;When;Deadline"), "date"),
        ],
        rows,
    )
    return Layout(
        f"<div style='font-size:1.3em'>{title2}{cells}</div>",
        SLIDE,
        14,
    )
