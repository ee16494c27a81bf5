"""Timetables, menus, tickets and labels."""

from __future__ import annotations

import html

from slime_vlm.pages.browser.blocks import (
    address_lines,
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
from slime_vlm.pages.browser.draft import Draft, Fact
from slime_vlm.pages.browser.templates.registry import A4, A5, Layout, template
from slime_vlm.pages.browser.values import format_time

_TRIP = [
    "passenger",
    "origin",
    "destination",
    "travel_date",
    "departure_time",
    "arrival_time",
    "seat",
    "class",
    "booking_code",
    "ticket_number",
    "price",
    "carrier",
]


def _stops(draft: Draft, count: int) -> list[str]:
    return list(dict.fromkeys(draft.value("place") for _ in range(count)))


def _runs(draft: Draft, stops: int, runs: int) -> tuple[list[str], list[list[str]]]:
    """Make the times of some runs along a line of stops."""
    rng = draft.rng
    names = _stops(draft, stops)
    start = rng.randrange(5 * 60, 12 * 60)
    offsets = [0]
    for _ in names[1:]:
        offsets.append(offsets[-1] + rng.randrange(2, 19))
    begins = [start + i * rng.choice((17, 20, 30, 41, 60)) for i in range(runs)]
    return names, [
        [name, *(format_time(draft.manner, begin + offset) for begin in begins)]
        for name, offset in zip(names, offsets, strict=True)
    ]


@template("timetable")
def timetable_of_line(draft: Draft) -> Layout:
    """Stops down the side, runs across."""
    runs = draft.rng.randint(3, 6)
    _, rows = _runs(draft, draft.rng.randint(5, 13), runs)
    numbers = [draft.value("code")[:6] for _ in range(runs)]
    title2 = draft.title(draft.rng.choice(("Line ", "Bus ", "Route ", "Train ")) + str(draft.rng.randrange(1, 400)))
    particulars = pairs(
        draft,
        draft.fields(["start_date", "end_date", "hotline", "origin", "destination"], 2, 4),
        only=("inline", "grid"),
    )
    cells = table(
        draft,
        [
            (heading(draft, "Stop;Station;Place;Halt"), "place"),
            *((number, "time") for number in dict.fromkeys(numbers)),
        ],
        [row[: len(dict.fromkeys(numbers)) + 1] for row in rows],
    )
    return Layout(
        f"<div class='band row'>{title2}<div>{company(draft)}</div></div><div class='gap'></div>"
        f"{particulars}<div class='gap'></div>"
        f"{cells}<div class='gap'></div>{text(draft, 'event', 1, 1)}",
        draft.rng.choice((A4, (297, 210), A5)),
        12,
    )


@template("timetable")
def departures_board(draft: Draft) -> Layout:
    """A board of departures, light on dark."""
    rng = draft.rng
    rows = [
        [
            name,
            draft.value("time"),
            draft.value("code")[:7],
            str(rng.randrange(1, 30)),
            rng.choice(("On time", "Delayed", "Boarding", "Cancelled", "")),
        ]
        for name in _stops(draft, rng.randint(6, 11))
    ]
    heads = [
        (heading(draft, "Destination;To;Direction;Bound for"), "place"),
        (heading(draft, "Time;Departs;Dep.;Leaves"), "time"),
        (heading(draft, "Train;Flight;Service;No."), "code"),
        (heading(draft, "Platform;Gate;Track;Stand"), "integer"),
        (heading(draft, "Remarks;Status;Note;Info"), "state"),
    ]
    dark = rng.random() < 0.6
    style = (
        "background:#10151f;color:#f4f1de;--accent:#f4c542;--ink:#f4f1de;--soft:#1d2636;--rule:#3a465c;" if dark else ""
    )
    title2 = draft.title(rng.choice(("Departures", "Abfahrt / Departures", "Next trains", "Flights")))
    return Layout(
        f"<div style='{style}min-height:160mm;padding:10mm'><div class='row'>{title2}<div class='huge'>"
        f"{html.escape(draft.value('time'))}</div></div>{table(draft, heads, rows, 'plain')}</div>",
        (280, 160),
        0,
    )


@template("timetable", heldout=True)
def school_timetable(draft: Draft) -> Layout:
    """A week's lessons: days across, hours down."""
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
    begin = draft.rng.choice((7 * 60 + 45, 8 * 60, 9 * 60))
    lessons = row_names(draft, 14, 1)
    rows = [
        [format_time(draft.manner, begin + i * 50), *(draft.rng.choice(lessons) for _ in days)]
        for i in range(draft.rng.randint(5, 8))
    ]
    title2 = draft.title(draft.rng.choice(("Timetable", "Weekly plan", "Class schedule")))
    particulars = pairs(draft, draft.fields(["teacher", "room", "start_date", "student"], 2, 3))
    cells = table(draft, [("", "time"), *((day, "word") for day in days)], rows)
    return Layout(
        f"{title2}{particulars}<div class='gap'></div>{cells}",
        (297, 210),
        14,
    )


@template("timetable")
def programme_of_event(draft: Draft) -> Layout:
    """A programme: times, talks, speakers, rooms."""
    rng = draft.rng
    at = rng.randrange(8 * 60, 10 * 60)
    rows = []
    for name in row_names(draft, rng.randint(5, 10)):
        rows.append([name, format_time(draft.manner, at), draft.value("person"), draft.value("code")[:4]])
        at += rng.choice((15, 30, 45, 60))
    heads = [
        (heading(draft, "Session;Talk;Topic;Item;Event"), "word"),
        (heading(draft, "Time;Start;Begins;From"), "time"),
        (heading(draft, "Speaker;By;Presenter;Chair;Who"), "person"),
        (heading(draft, "Room;Hall;Where;Stage"), "code"),
    ]
    particulars = pairs(draft, draft.fields(["meeting_date", "venue", "host"], 2, 3), "inline")
    return Layout(
        f"<div class='centre'>{draft.title(draft.value('phrase'))}{particulars}</div><div class='gap'></div>"
        f"{table(draft, heads, rows)}<div class='gap'></div>{text(draft, 'event', 2, 1)}",
        draft.rng.choice((A4, A5)),
        14,
    )


@template("timetable", heldout=True)
def opening_times(draft: Draft) -> Layout:
    """Opening hours on a door."""
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    rows = [
        [
            day,
            f"{format_time(draft.manner, draft.rng.randrange(84, 132) * 5)} - "
            f"{format_time(draft.manner, draft.rng.randrange(180, 260) * 5)}",
        ]
        for day in days[: draft.rng.randint(5, 7)]
    ]
    title2 = draft.title(draft.rng.choice(("Opening hours", "We are open", "Surgery hours")))
    cells = table(
        draft, [(heading(draft, "Day;Weekday"), "weekday"), (heading(draft, "Hours;Open;Time"), "range")], rows
    )
    particulars = pairs(draft, draft.fields(["phone", "contact", "website"], 2, 3), "inline")
    return Layout(
        f"<div class='centre'>{logo(draft, 60)}<div class='huge'>{company(draft)}</div><div class='gap'>"
        f"</div>{title2}</div>{cells}<div class='gap'></div><div class='centre'>{particulars}"
        f"{text(draft, 'event', 1, 0)}</div>",
        A5,
        14,
    )


def _dishes(draft: Draft, count: int, style: str) -> str:
    parts = []
    for name in row_names(draft, count, 4):
        field_key, key_html = draft.mark(name)
        price = draft.value("money")
        value, value_html = draft.mark(price)
        draft.facts.append(Fact("cell", price, "money", value, (field_key,), phrase=name, column="price", sole=True))
        detail = (
            f"<div class='small muted'>{html.escape(', '.join(draft.words.word(draft.rng) for _ in range(3)))}</div>"
            if draft.rng.random() < 0.5
            else ""
        )
        line = "<i></i>" if style == "leaders" else "<span class='grow'></span>"
        parts.append(
            f"<div style='margin:.35em 0'><div class='p-leaders'><div>{key_html}{line}{value_html}</div></div>"
            f"{detail}</div>"
            if style != "under"
            else (
                f"<div class='centre' style='margin:.7em 0'><div>{key_html}</div>{detail}<div class='accent'>"
                f"{value_html}</div></div>"
            )
        )
    return "".join(parts)


@template("menu")
def menu_of_restaurant(draft: Draft) -> Layout:
    """A menu with courses and prices."""
    courses = []
    for _ in range(draft.rng.randint(2, 4)):
        _, head = section_title(draft)
        courses.append(f"{head}{_dishes(draft, draft.rng.randint(3, 6), 'leaders')}")
    title2 = draft.title(draft.rng.choice(("Menu", "Lunch menu", "A la carte", "Our kitchen")), "h2")
    return Layout(
        f"<div class='centre'><div class='huge head'>{company(draft)}</div>{title2}</div>"
        f"{''.join(courses)}<hr class='rule'><div class='centre small'>{text(draft, 'event', 1, 1)}</div>",
        draft.rng.choice((A4, A5)),
        16,
    )


@template("menu")
def menu_of_cafe(draft: Draft) -> Layout:
    """A café's board in two columns."""
    parts = []
    for _ in range(4):
        _, head = section_title(draft, "h3")
        parts.append(f"<div>{head}{_dishes(draft, draft.rng.randint(3, 5), 'plain')}</div>")
    title2 = draft.title(draft.rng.choice(("Drinks", "Coffee & cake", "Today", "Specials")))
    return Layout(
        f"<div class='band centre'>{title2}</div><div class='gap'></div><div class='two'>{''.join(parts)}"
        f"</div><div class='small centre'>{company(draft)}</div>",
        A4,
        13,
    )


@template("menu", heldout=True)
def menu_of_day(draft: Draft) -> Layout:
    """A menu of the day, all in the middle."""
    title2 = draft.title(draft.rng.choice(("Menu of the day", "Today we serve", "Set lunch")))
    particulars = pairs(draft, draft.fields(["invoice_date", "start_time", "end_time"], 1, 2), "inline")
    dishes = _dishes(draft, draft.rng.randint(4, 7), "under")
    return Layout(
        f"<div class='centre' style='border:2px solid var(--accent);padding:10mm'>{logo(draft)}{title2}"
        f"{particulars}{dishes}{company(draft)}</div>",
        A5,
        10,
    )


@template("menu")
def recipe(draft: Draft) -> Layout:
    """A recipe: amounts, steps, times."""
    rows = [[name, draft.value("measure")] for name in row_names(draft, draft.rng.randint(5, 10), 2)]
    steps = "".join(f"<p>{i}. {prose(draft, 1)[3:-4]}</p>" for i in range(1, draft.rng.randint(4, 7)))
    particulars = pairs(draft, draft.fields(["duration", "guests", "temperature", "author"], 2, 4))
    cells = table(
        draft,
        [(heading(draft, "Ingredient;You need;Take"), "word"), (heading(draft, "Amount;Quantity;How much"), "measure")],
        rows,
        "plain",
        head=draft.rng.random() < 0.4,
    )
    return Layout(
        f"{draft.title(' '.join(row_names(draft, 1)))}{particulars}<div class='gap'></div><div class='two'>"
        f"<div>{cells}</div><div>{steps}</div></div>{text(draft, 'any', 1, 0)}",
        A5,
        13,
    )


@template("ticket")
def boarding_pass(draft: Draft) -> Layout:
    """A boarding pass with its stub."""
    fields = draft.fields(
        [
            "passenger",
            "flight",
            "travel_date",
            "origin",
            "destination",
            "gate",
            "boarding_time",
            "seat",
            "class",
            "booking_code",
        ],
        7,
        10,
        invented=0.1,
    )
    title2 = draft.title(draft.rng.choice(("Boarding pass", "BOARDING PASS", "Mobile boarding card")), "h2")
    return Layout(
        f"<div class='box'><div class='band row'><div>{company(draft)}</div>{title2}</div><div "
        "class='gap'></div><div class='row'><div class='grow'>"
        f"{pairs(draft, fields, only=('grid', 'boxed'))}</div><div style='border-left:2px dashed "
        "var(--rule);padding-left:1em'><div class='bars' style='height:9em;width:5em'></div></div></div>"
        "</div>",
        (200, 110),
        6,
        crop=True,
    )


@template("ticket")
def train_ticket(draft: Draft) -> Layout:
    """A train's ticket on a narrow slip."""
    title2 = draft.title(draft.rng.choice(("Ticket", "Single journey", "Day return", "Travel pass")), "h3")
    return Layout(
        f"<div class='box'><div class='row'><div class='large accent'>{company(draft)}</div><div>{title2}"
        f"</div></div><hr class='rule'>{pairs(draft, draft.fields(_TRIP, 6, 9))}<div class='row small'>"
        f"{text(draft, 'event', 1, 0)}<div class='bars'></div></div></div>",
        (160, 110),
        5,
        crop=True,
    )


@template("ticket", heldout=True)
def concert_ticket(draft: Draft) -> Layout:
    """An entrance ticket with large title."""
    particulars = pairs(
        draft, draft.fields(["start_date", "start_time", "venue", "seat", "price", "ticket_number"], 4, 6)
    )
    return Layout(
        "<div class='row' style='border:2px solid var(--accent)'><div class='band' "
        "style='width:12mm;min-height:62mm'></div><div class='grow' style='padding:.8em'>"
        f"{draft.title(draft.value('phrase'))}<div>{draft.named('issuer', draft.value('company'))}</div>"
        f"{particulars}</div><div style='padding:.8em'><div class='bars' style='height:11em;width:3em'></div>"
        "</div></div>",
        (180, 90),
        4,
        crop=True,
    )


@template("ticket")
def parking_ticket(draft: Draft) -> Layout:
    """A ticket of a car park or a penalty."""
    title2 = draft.title(draft.rng.choice(("Parking ticket", "Car park", "Penalty notice", "Pay and display")), "h2")
    particulars = pairs(
        draft,
        draft.fields(["license_plate", "start_date", "start_time", "end_time", "fee", "ticket_number", "office"], 4, 7),
    )
    return Layout(
        f"<div class='centre'>{title2}{company(draft)}</div><hr class='rule'>{particulars}<hr class='rule'>"
        f"<div class='small'>{text(draft, 'event', 1, 1)}</div>",
        (80, 200),
        5,
        crop=True,
    )


@template("ticket")
def hotel_booking(draft: Draft) -> Layout:
    """A hotel's confirmation."""
    title2 = draft.title(draft.rng.choice(("Booking confirmation", "Your reservation", "Reservation details")))
    particulars = pairs(
        draft,
        draft.fields(
            ["booking_code", "guest", "check_in", "check_out", "nights", "guests", "room", "total", "phone"], 6, 9
        ),
    )
    return Layout(
        f"<div class='row'>{logo(draft, 60)}<div class='right'><div class='large'>{company(draft)}</div>"
        f"{address_lines(draft)}</div></div>{title2}{particulars}<div class='gap'></div>"
        f"{text(draft, 'event', 2, 1)}",
        A5,
        12,
    )


@template("label")
def shipping_label(draft: Draft) -> Layout:
    """A parcel's label: sender small, receiver large, codes."""
    named2 = draft.named("recipient", draft.value("person"))
    particulars = pairs(
        draft,
        draft.fields(["tracking_number", "weight", "packages", "reference", "carrier", "delivery_date"], 3, 6),
        only=("grid", "inline", "boxed"),
    )
    return Layout(
        "<div style='border:2px solid var(--ink);padding:.6em'><div class='row small'><div>"
        f"{company(draft)}{address_lines(draft)}</div>{logo(draft)}</div><hr class='thick'><div "
        f"class='large'>{named2}{address_lines(draft)}</div><hr class='thick'>{particulars}<div "
        "class='centre'><div class='bars' style='height:5em;width:20em'></div></div></div>",
        (105, 180),
        4,
        crop=True,
    )


@template("label")
def nutrition_label(draft: Draft) -> Layout:
    """Nutrition facts between thick rules."""
    rows = [
        [name, draft.value("measure"), draft.value("percent")] for name in row_names(draft, draft.rng.randint(5, 10), 2)
    ]
    title2 = draft.title(draft.rng.choice(("Nutrition facts", "Nutrition information", "Contents")), "h2")
    particulars = pairs(draft, draft.fields(["volume", "quantity", "expiry"], 1, 3), "inline")
    cells = table(
        draft,
        [
            (heading(draft, "Per serving;Nutrient;Contains"), "word"),
            (heading(draft, "Amount;per 100 g;Value"), "measure"),
            (heading(draft, "% daily;% DV;Share"), "percent"),
        ],
        rows,
        "lines" if draft.split == "train" else "dotted",
    )
    return Layout(
        f"<div style='border:2px solid var(--ink);padding:.6em;width:78mm'>{title2}<div>{particulars}</div>"
        f"<hr class='thick'>{cells}</div>",
        (95, 220),
        6,
        crop=True,
    )


@template("label", heldout=True)
def type_plate(draft: Draft) -> Layout:
    """A machine's type plate."""
    particulars = pairs(
        draft,
        draft.fields(
            ["article_number", "serial_number", "voltage", "power", "weight", "pressure", "country_of_origin"], 5, 8
        ),
    )
    return Layout(
        "<div style='border:3px solid var(--ink);border-radius:12px;padding:1em'><div class='row'>"
        f"{logo(draft)}<div class='large'>{company(draft)}</div></div>"
        f"{draft.title(draft.value('phrase'), 'h3')}{particulars}</div>",
        (130, 120),
        6,
        crop=True,
    )


@template("label")
def price_tag(draft: Draft) -> Layout:
    """A shelf's price tag."""
    title2 = draft.title(" ".join(row_names(draft, 1)), "h2")
    more_particulars = pairs(draft, draft.fields(["price"], 1, 1, invented=0), "inline")
    particulars = pairs(
        draft,
        draft.fields(["article_number", "unit_price", "country_of_origin", "weight", "supplier"], 2, 5),
        only=("inline", "table"),
    )
    return Layout(
        f"<div class='box'>{title2}<div class='row'><div class='huge'>{more_particulars}</div><div class='bars'>"
        f"</div></div>{particulars}</div>",
        (110, 90),
        5,
        crop=True,
    )


@template("label", heldout=True)
def medicine_label(draft: Draft) -> Layout:
    """A pharmacy's label on a box."""
    title2 = draft.title(" ".join(row_names(draft, 1, 2)), "h2")
    particulars = pairs(draft, draft.fields(["patient", "doctor", "batch", "expiry", "temperature", "supplier"], 4, 6))
    return Layout(
        f"<div class='soft'>{title2}{text(draft, 'lab', 2, 0)}{particulars}</div>",
        (110, 110),
        5,
        crop=True,
    )


@template("label")
def badge(draft: Draft) -> Layout:
    """A badge or a business card."""
    particulars = pairs(
        draft,
        draft.fields(["position", "department", "mobile", "email", "website", "employee_id"], 3, 5),
        only=("inline", "table"),
    )
    return Layout(
        f"<div class='box'><div class='row'>{logo(draft)}<div class='right'>{company(draft)}</div></div>"
        f"<div class='gap'></div>{draft.title(draft.value('person'), 'h2')}{particulars}</div>",
        (95, 75),
        4,
        crop=True,
    )
