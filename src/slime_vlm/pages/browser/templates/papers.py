"""Forms, data sheets, laboratory reports and tables."""

from __future__ import annotations

import html

from slime_vlm.pages.browser.blocks import (
    address_lines,
    addressee,
    chart,
    company,
    heading,
    logo,
    pairs,
    prose,
    row_names,
    section_title,
    signature,
    table,
    text,
)
from slime_vlm.pages.browser.draft import Draft
from slime_vlm.pages.browser.templates.registry import A4, A5, LETTER, Layout, template

_PERSON = [
    "applicant",
    "birth_date",
    "birth_place",
    "nationality",
    "sex",
    "marital_status",
    "address",
    "phone",
    "email",
    "position",
    "employer",
    "mobile",
]
_TECH = [
    "article_number",
    "weight",
    "dimensions",
    "power",
    "voltage",
    "temperature",
    "material",
    "colour",
    "volume",
    "speed",
    "pressure",
    "length",
    "warranty",
    "country_of_origin",
    "version",
    "humidity",
]


def _sections(
    draft: Draft, count: int, names: list[str | None], most: int, how: str = "", tag: str = "h3"
) -> list[str]:
    """Write sections of fields; keys may come again in another section."""
    parts = []
    for _ in range(count):
        name, head = section_title(draft, tag)
        draft.rng.shuffle(names)
        parts.append(f"<div>{head}{pairs(draft, draft.fields(names, 2, most, section=name), how)}</div>")
    return parts


@template("form")
def form_application(draft: Draft) -> Layout:
    """An application: sections of boxes filled in."""
    parts = _sections(draft, 2, [*_PERSON], 8, "boxed2" if draft.split == "train" else "boxed4")
    title2 = draft.title(
        draft.rng.choice(("Application form", "Registration", "Membership application", "Request for enrolment"))
    )
    return Layout(
        f"<div class='row'>{title2}{logo(draft)}</div>"
        f"<div class='small'>{prose(draft, 1)}</div><div class='col hand'>{''.join(parts)}</div><div "
        f"class='gap'></div>{text(draft, 'any', 1, 1)}{signature(draft)}",
        draft.rng.choice((A4, LETTER)),
        15,
    )


@template("form")
def form_lines(draft: Draft) -> Layout:
    """A form with lines to write on."""
    fields = draft.fields(_PERSON, 7, 12)
    title2 = draft.title(
        draft.rng.choice(("Personal details", "Visitor form", "Claim form", "Enquiry", "Patient registration"))
    )
    particulars = pairs(draft, fields, "under2" if draft.split == "train" else "under3")
    return Layout(
        f"{title2}{prose(draft, 1)}"
        f"<div class='hand'>{particulars}</div><div class='gap'></div>{_ticks(draft)}{signature(draft)}",
        draft.rng.choice((A4, A5)),
        14,
    )


def _ticks(draft: Draft) -> str:
    """Write questions with boxes to tick; the ticked one answers."""
    parts = []
    for _ in range(draft.rng.randint(1, 3)):
        options = row_names(draft, draft.rng.randint(2, 4), 1)
        chosen = draft.rng.choice(options)
        field = draft.field(None, kind="word", value=chosen)
        if field is None:
            continue
        boxes = "".join(
            f"<span style='margin-right:1.5em'><span class='tick{' on' if option == chosen else ''}'></span>"
            f"{field.value if option == chosen else html.escape(option)}</span>"
            for option in options
        )
        parts.append(f"<p>{field.key}{draft.theme.colon} {boxes}</p>")
    return "".join(parts)


@template("form", heldout=True)
def form_numbered(draft: Draft) -> Layout:
    """An official form: numbered boxes over the whole page."""
    fields = draft.fields([*_PERSON, "tax_id", "employee_id", "account", "salary"], 10, 16)
    boxes = "".join(
        "<div style='border:1px solid var(--ink);padding:.2em .4em;"
        f"{'grid-column:span 2' if len(f.value_text) > 22 else ''}'><span class='small'>{i} {f.key}</span>"
        f"<div class='hand'>{f.value}</div></div>"
        for i, f in enumerate(fields, 1)
    )
    title2 = draft.title(
        draft.rng.choice(("Declaration", "Return of income", "Customs declaration", "Notification of change"))
    )
    return Layout(
        f"<div class='row'>{title2}<div class='box small'>{html.escape(draft.value('code'))}</div></div>"
        f"<div style='display:grid;grid-template-columns:repeat(3,1fr)'>{boxes}</div><div class='gap'>"
        f"</div>{text(draft, 'any', 1, 2)}{signature(draft)}",
        A4,
        14,
    )


@template("form")
def form_medical(draft: Draft) -> Layout:
    """A patient's form in two columns."""
    left, right = _sections(
        draft,
        2,
        [
            "patient",
            "birth_date",
            "blood_type",
            "phone",
            "doctor",
            "insurer",
            "emergency_contact",
            "age",
            "height",
            "weight",
        ],
        7,
    )
    title2 = draft.title(
        draft.rng.choice(("Patient information", "Admission form", "Medical history", "Vaccination record"))
    )
    return Layout(
        f"<div class='band'>{title2}</div><div class='gap'></div><div class='two'>{left}{right}</div><div "
        f"class='gap'></div>{_ticks(draft)}{text(draft, 'lab', 2, 1)}",
        A4,
        13,
    )


@template("form", heldout=True)
def form_order_slip(draft: Draft) -> Layout:
    """A slip for workshop or repair."""
    fields = draft.fields(
        [
            "customer",
            "phone",
            "license_plate",
            "mileage",
            "product",
            "serial_number",
            "technician",
            "pickup_time",
            "price",
            "warranty",
        ],
        6,
        10,
    )
    title2 = draft.title(draft.rng.choice(("Repair order", "Job card", "Service slip", "Work ticket")), "h2")
    return Layout(
        f"<div class='row'>{company(draft)}{title2}</div><hr class='thick'><div class='hand'>"
        f"{pairs(draft, fields)}</div><div class='gap'></div>{_ticks(draft)}{signature(draft)}",
        A5,
        10,
    )


@template("form")
def questionnaire(draft: Draft) -> Layout:
    """A questionnaire with ticked answers."""
    title2 = draft.title(draft.rng.choice(("Customer survey", "Questionnaire", "Feedback form", "How did we do?")))
    particulars = pairs(
        draft, draft.fields(["applicant", "age", "city", "invoice_date", "rating"], 2, 4), only=("under", "table")
    )
    return Layout(
        f"{title2}{prose(draft, 2)}{_ticks(draft)}{_ticks(draft)}{_ticks(draft)}{particulars}",
        A4,
        18,
    )


@template("data sheet")
def data_sheet(draft: Draft) -> Layout:
    """A product's data in one long table, grouped."""
    parts = _sections(draft, draft.rng.randint(2, 3), [*_TECH], 8)
    return Layout(
        f"<div class='row'><div>{draft.title(draft.value('phrase'))}{prose(draft, 1)}</div>"
        f"{logo(draft, 90)}</div><div class='col'>{''.join(parts)}</div><div class='gap'></div>"
        f"{text(draft, 'tech', 2, 1)}<div class='small muted'>{company(draft)}</div>",
        A4,
        15,
    )


@template("data sheet", heldout=True)
def data_sheet_columns(draft: Draft) -> Layout:
    """A data sheet with models side by side."""
    models = [draft.value("code") for _ in range(draft.rng.randint(2, 3))]
    kinds = [
        draft.rng.choice(("measure", "integer", "measure", "percent", "size")) for _ in range(draft.rng.randint(6, 10))
    ]
    rows = [
        [name, *(draft.value(kind) for _ in models)]
        for name, kind in zip(row_names(draft, len(kinds), 2), kinds, strict=True)
    ]
    cells = table(draft, [("", "word"), *((model, "measure") for model in models)], rows)
    return Layout(
        f"<div class='band'>{draft.title(draft.value('phrase'))}</div><div class='gap'></div><div "
        f"class='two'>{text(draft, 'tech', 2, 2)}<div>{chart(draft, 300, 170)}</div></div>"
        f"{cells}<div class='gap'></div>{pairs(draft, draft.fields(_TECH, 4, 7))}",
        LETTER,
        14,
    )


@template("data sheet")
def manual_page(draft: Draft) -> Layout:
    """A page of a manual: running text, a warning, a small table."""
    rows = [
        [name, draft.value("measure"), draft.value("code")] for name in row_names(draft, draft.rng.randint(3, 6), 2)
    ]
    wording = draft.rng.choice(("Warning", "Caution", "Note", "Important"))
    cells = table(
        draft,
        [
            (heading(draft, "Part;Item;Component;Element"), "word"),
            (heading(draft, "Value;Size;Setting;Limit"), "measure"),
            (heading(draft, "Code;Order no.;Ref;Part no."), "code"),
        ],
        rows,
    )
    return Layout(
        f"{draft.title(draft.value('phrase'))}{text(draft, 'tech', 3, 3)}<div class='box'><b>{wording}</b> "
        f"{text(draft, 'tech', 1, 1)}</div><div class='gap'></div>"
        f"{cells}<div class='gap'></div>{text(draft, 'any', 2, 3)}",
        A5,
        13,
    )


@template("data sheet")
def property_listing(draft: Draft) -> Layout:
    """An advertisement for a house or a car."""
    more_particulars = pairs(draft, draft.fields(["price"], 1, 1, invented=0), "inline")
    particulars = pairs(
        draft,
        draft.fields(
            [
                "rent",
                "deposit",
                "city",
                "start_date",
                "mileage",
                "colour",
                "contact",
                "phone",
                "dimensions",
                None,
                None,
            ],
            6,
            9,
        ),
    )
    return Layout(
        f"<div class='soft centre' style='height:52mm'>{logo(draft, 120)}</div>"
        f"{draft.title(draft.value('phrase'))}<div class='row'><div class='huge accent'>{more_particulars}</div>"
        "</div>"
        f"{particulars}<div class='gap'></div>{text(draft, 'letter', 1, 3)}",
        A4,
        14,
    )


def _tests(draft: Draft, count: int) -> str:
    rows = [
        [
            name.capitalize(),
            draft.value("measure"),
            draft.value("range"),
            draft.rng.choice(("", "", "H", "L", "normal")),
        ]
        for name in row_names(draft, count, 2)
    ]
    heads = [
        (heading(draft, "Test;Analyte;Parameter;Examination;Investigation"), "word"),
        (heading(draft, "Result;Value;Finding;Measured;Level"), "measure"),
        (heading(draft, "Reference range;Normal range;Range;Expected;Ref. values;Limits"), "range"),
        (heading(draft, "Flag;Note;Remark;Rating;Comment"), "state"),
    ]
    return table(draft, heads, rows)


@template("lab report")
def lab_report(draft: Draft) -> Layout:
    """A laboratory's report: patient, tests with ranges."""
    more_particulars = pairs(draft, draft.fields(["phone", "fax"], 1, 2), "inline")
    title2 = draft.title(draft.rng.choice(("Laboratory report", "Test results", "Blood count", "Analysis report")))
    particulars = pairs(
        draft,
        draft.fields(
            ["patient", "birth_date", "patient_id", "doctor", "sample_id", "sample_date", "report_date", "sex"], 5, 8
        ),
    )
    return Layout(
        f"<div class='row'><div class='large'>{company(draft)}</div><div class='small right'>"
        f"{address_lines(draft)}{more_particulars}</div></div><hr class='thick'>{title2}"
        f"{particulars}<div class='gap'></div>{_tests(draft, draft.rng.randint(5, 12))}<div class='gap'></div>"
        f"{text(draft, 'lab', 2, 1)}",
        draft.rng.choice((A4, LETTER)),
        15,
    )


@template("lab report", heldout=True)
def lab_water(draft: Draft) -> Layout:
    """A report on a sample of water or soil, numbers first."""
    title2 = draft.title(
        draft.rng.choice(("Water analysis", "Soil test report", "Report of analysis", "Emission test"))
    )
    particulars = pairs(draft, draft.fields(["sample_id", "sample_date", "technician", "temperature", "result"], 3, 5))
    return Layout(
        f"{title2}<div class='two'><div>{addressee(draft)}</div><div>{particulars}</div></div><div "
        "class='gap'></div>"
        f"{_tests(draft, draft.rng.randint(4, 9))}<div class='gap'></div>{text(draft, 'lab', 2, 2)}{signature(draft)}",
        A4,
        17,
    )


@template("lab report")
def inspection_report(draft: Draft) -> Layout:
    """A record of an inspection with verdicts."""
    rows = [
        [name, draft.value("state"), draft.value("date"), draft.value("person")]
        for name in row_names(draft, draft.rng.randint(4, 9), 2)
    ]
    heads = [
        (heading(draft, "Checked;Part;Point;Item;Inspected"), "word"),
        (heading(draft, "State;Result;Status;Verdict;OK?"), "state"),
        (heading(draft, "Date;When;Checked on;On"), "date"),
        (heading(draft, "By;Inspector;Name;Initials"), "person"),
    ]
    title2 = draft.title(
        draft.rng.choice(("Inspection record", "Safety check", "Maintenance log", "Calibration certificate"))
    )
    particulars = pairs(
        draft, draft.fields(["serial_number", "inspection_date", "technician", "office", "version", "status"], 3, 6)
    )
    return Layout(
        f"{title2}{particulars}<div class='gap'></div>{table(draft, heads, rows)}<div class='gap'></div>"
        f"{text(draft, 'tech', 2, 1)}",
        draft.rng.choice((A4, (297, 210))),
        14,
    )


@template("lab report")
def medical_letter(draft: Draft) -> Layout:
    """A clinic's report in words and a few values."""
    name, head = section_title(draft, "h3")
    more_particulars = pairs(
        draft, draft.fields(["patient", "birth_date", "doctor", "report_date"], 3, 4), only=("inline", "table")
    )
    title2 = draft.title(draft.rng.choice(("Discharge summary", "Clinic letter", "Report on examination")), "h2")
    particulars = pairs(
        draft, draft.fields(["diagnosis", "weight", "height", "temperature", None, None], 3, 6, section=name)
    )
    return Layout(
        f"<div class='row'><div>{logo(draft)}{company(draft)}</div><div>{more_particulars}</div></div><hr "
        f"class='rule'>{title2}"
        f"{text(draft, 'lab', 2, 2)}{head}{particulars}<div class='gap'></div>{text(draft, 'lab', 1, 2)}"
        f"{signature(draft)}",
        A4,
        20,
    )


@template("table")
def price_list(draft: Draft) -> Layout:
    """A list of prices in two blocks."""
    parts = []
    for _ in range(2):
        _, head = section_title(draft, "h3")
        rows = [
            [name, draft.value("code"), draft.value("money")] for name in row_names(draft, draft.rng.randint(4, 10), 2)
        ]
        parts.append(
            head
            + table(
                draft,
                [
                    (heading(draft, "Product;Article;Item;Goods;Service"), "word"),
                    (heading(draft, "Order no.;Code;No.;SKU"), "code"),
                    (heading(draft, "Price;Our price;Each;Retail price"), "money"),
                ],
                rows,
            )
        )
    title2 = draft.title(draft.rng.choice(("Price list", "Tariff", "Rates and fees", "Catalogue")))
    return Layout(
        f"{title2}<div class='two'><div>{parts[0]}</div><div>{parts[1]}</div></div><div class='gap'></div>"
        f"{text(draft, 'pay', 1, 1)}{company(draft)}",
        A4,
        14,
    )


@template("table")
def statistics_table(draft: Draft) -> Layout:
    """A table of numbers with years as columns."""
    years = [str(draft.manner.year + i) for i in range(draft.rng.randint(3, 5))]
    rows = [[name, *(draft.value("integer") for _ in years)] for name in row_names(draft, draft.rng.randint(5, 14), 2)]
    title2 = draft.title("Table " + str(draft.rng.randrange(1, 30)) + ". " + draft.value("phrase"))
    cells = table(draft, [(draft.open_key(), "word"), *((year, "integer") for year in years)], rows)
    return Layout(
        f"{title2}{prose(draft, 1)}{cells}<div class='gap'></div>{text(draft, 'any', 2, 2)}",
        draft.rng.choice((A4, (297, 210))),
        16,
    )


@template("table", heldout=True)
def staff_list(draft: Draft) -> Layout:
    """A list of people with rooms and telephones."""
    names = list(dict.fromkeys(draft.value("person") for _ in range(draft.rng.randint(6, 14))))
    rows = [
        [name, draft.words.word(draft.rng).capitalize(), draft.value("integer"), draft.value("phone")] for name in names
    ]
    title2 = draft.title(draft.rng.choice(("Telephone list", "Staff directory", "Our team", "List of members")))
    cells = table(
        draft,
        [
            (heading(draft, "Name;Employee;Person;Member;Who"), "person"),
            (heading(draft, "Department;Team;Role;Field;Duty"), "word"),
            (heading(draft, "Room;Ext.;Office no.;Desk"), "integer"),
            (heading(draft, "Phone;Tel.;Mobile;Telephone no."), "phone"),
        ],
        rows,
    )
    return Layout(
        f"{title2}{cells}<div class='gap'></div>{company(draft)}",
        A4,
        16,
    )


@template("table")
def league_table(draft: Draft) -> Layout:
    """A ranking with points."""
    places = list(dict.fromkeys(draft.value("place") for _ in range(draft.rng.randint(6, 12))))
    rows = [[name, *(str(draft.rng.randrange(1, 60)) for _ in range(4))] for name in places]
    heads = [(heading(draft, "Team;Club;Town;Entrant"), "place"), *((draft.open_key(), "integer") for _ in range(4))]
    return Layout(
        f"<div class='band'>{draft.title(draft.value('phrase'))}</div><div class='gap'></div>"
        f"{table(draft, heads, rows)}{text(draft, 'any', 1, 1)}",
        A5,
        12,
    )


@template("table", heldout=True)
def stock_list(draft: Draft) -> Layout:
    """A list of stock as a spreadsheet prints it."""
    rows = [
        [name, draft.value("code"), draft.value("integer"), draft.value("money"), draft.value("place")]
        for name in row_names(draft, draft.rng.randint(8, 18), 2)
    ]
    heads = [
        (heading(draft, "Item;Article;Part;Material"), "word"),
        (heading(draft, "SKU;Part no.;Code;Bin"), "code"),
        (heading(draft, "On hand;Stock;Qty;Count"), "integer"),
        (heading(draft, "Value;Cost;Unit cost;Price"), "money"),
        (heading(draft, "Location;Store;Depot;Warehouse"), "place"),
    ]
    title2 = draft.title(draft.rng.choice(("Stock list", "Inventory", "Count sheet")), "h2")
    particulars = pairs(draft, draft.fields(["office", "invoice_date", "author"], 2, 3))
    return Layout(
        f"{title2}{particulars}<div class='gap'></div>{table(draft, heads, rows, 'columns')}",
        (297, 210),
        10,
    )
