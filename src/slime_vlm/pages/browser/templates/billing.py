"""Invoices, receipts and statements."""

from __future__ import annotations

import html

from slime_vlm.pages.browser.blocks import (
    address_lines,
    addressee,
    company,
    heading,
    items,
    letterhead,
    logo,
    pairs,
    prose,
    section_title,
    signature,
    table,
    text,
    totals,
)
from slime_vlm.pages.browser.draft import Draft
from slime_vlm.pages.browser.templates.registry import A4, A5, LETTER, ROLL, Layout, template
from slime_vlm.pages.browser.values import amount, format_date

_META = ["invoice_number", "invoice_date", "due_date", "order_number", "customer_number", "reference", "contact"]
_PAY = ["bank", "account", "bic", "payment_terms", "payment_method", "tax_id"]
_TITLES = (
    "Invoice",
    "INVOICE",
    "Tax invoice",
    "Bill",
    "Pro forma invoice",
    "Credit note",
    "Commercial invoice",
    "Rechnung / Invoice",
)


def _title(draft: Draft, tag: str = "h1") -> str:
    return draft.title(draft.rng.choice(_TITLES), tag)


def _sums(draft: Draft, cents: int) -> str:
    return f"<div style='margin:.8em 0 .8em auto;width:17em'>{pairs(draft, totals(draft, cents), 'ruled')}</div>"


@template("invoice")
def invoice_classic(draft: Draft) -> Layout:
    """Letterhead, addressee beside the numbers, goods, sums, payment at the foot."""
    goods, cents = items(draft, 3, 9)
    meta = pairs(draft, draft.fields(_META, 3, 6))
    return Layout(
        f"{letterhead(draft)}<div class='gap'></div><div class='row'>{addressee(draft)}<div>{meta}</div></div>"
        f"<div class='gap'></div>{_title(draft)}{goods}{_sums(draft, cents)}"
        f"{text(draft, 'pay', 2, 1)}<hr class='rule'>{pairs(draft, draft.fields(_PAY, 2, 4), only=('grid', 'inline'))}",
        draft.rng.choice((A4, LETTER)),
    )


@template("invoice")
def invoice_band(draft: Draft) -> Layout:
    """A coloured band with the title, numbers in a grid, big total."""
    goods, cents = items(draft, 2, 7)
    sums = totals(draft, cents)
    particulars = pairs(draft, draft.fields(_META, 4, 7), only=("grid", "boxed"))
    return Layout(
        f"<div class='band row'>{_title(draft)}<div class='right'>{company(draft)}{address_lines(draft)}</div></div>"
        f"<div class='gap'></div>{particulars}<div class='gap'></div>"
        f"<div class='two'>{addressee(draft)}<div class='soft'>{pairs(draft, sums)}</div></div><div "
        f"class='gap'></div>{goods}"
        f"<div class='gap'></div>{text(draft, 'pay', 1, 2)}{pairs(draft, draft.fields(_PAY, 2, 4))}",
    )


@template("invoice", heldout=True)
def invoice_sidebar(draft: Draft) -> Layout:
    """A coloured column on the left with the firm's data."""
    goods, cents = items(draft, 3, 8)
    side = pairs(draft, draft.fields(["phone", "email", "website", "account", "tax_id", "contact"], 3, 5), "stacked")
    return Layout(
        "<div style='display:flex;min-height:297mm'><div class='band small' style='width:32%;padding:12mm 8mm'>"
        f"{logo(draft)}<div class='large'>{company(draft)}</div>{address_lines(draft)}<div class='gap'>"
        f"</div>{side}</div>"
        f"<div style='flex:1;padding:12mm 10mm'>{_title(draft)}{addressee(draft)}<div class='gap'></div>"
        f"{pairs(draft, draft.fields(_META, 3, 5))}<div class='gap'></div>{goods}{_sums(draft, cents)}"
        f"{text(draft, 'pay', 2, 0)}</div></div>",
        A4,
        0,
    )


@template("invoice")
def invoice_boxed(draft: Draft) -> Layout:
    """Everything in ruled boxes, as printed forms have it."""
    goods, cents = items(draft, 2, 6, "cnqps")
    particulars = pairs(draft, draft.fields(_META, 6, 7), "boxed3" if draft.split == "train" else "boxed4")
    return Layout(
        f"<div class='row'>{_title(draft)}<div>{logo(draft, 36)}</div></div>"
        f"<div class='two'><div class='box'>{company(draft)}{address_lines(draft)}</div><div class='box'>"
        f"{addressee(draft)}</div></div>"
        f"{particulars}<div class='gap'></div>{goods}"
        f"<div class='two' style='margin-top:1em'><div class='box small'>{text(draft, 'pay', 1, 2)}</div>"
        f"<div class='box'>{pairs(draft, totals(draft, cents))}</div></div>",
        LETTER,
        14,
    )


@template("invoice", heldout=True)
def invoice_half_page(draft: Draft) -> Layout:
    """A small invoice of a craftsman."""
    goods, cents = items(draft, 1, 4, draft.rng.choice(("ns", "nps")))
    return Layout(
        f"{_title(draft, 'h2')}<div class='row'><div>{company(draft)}{address_lines(draft)}</div>"
        f"{addressee(draft)}</div>"
        f"<hr class='thick'>{pairs(draft, draft.fields(_META, 2, 4))}<div class='gap'></div>{goods}"
        f"{_sums(draft, cents)}"
        f"{text(draft, 'pay', 1, 1)}{signature(draft)}",
        A5,
        11,
    )


@template("invoice")
def bill_of_utilities(draft: Draft) -> Layout:
    """A bill for power or water: readings, consumption, charges."""
    rng = draft.rng
    name, head = section_title(draft)
    readings = draft.fields(
        ["meter_reading", "reading_date", "consumption", "unit_price", "serial_number"], 3, 5, section=name
    )
    charges = draft.fields([None, None, "fee", "tax", "amount_due", "due_date"], 4, 6)
    title2 = draft.title(
        rng.choice(("Your energy bill", "Water bill", "Electricity statement", "Gas bill", "Telephone bill"))
    )
    more_particulars = pairs(
        draft, draft.fields(["customer_number", "contract_number", "invoice_date", "start_date", "end_date"], 3, 5)
    )
    particulars = pairs(draft, charges, only=("ruled", "leaders", "table"))
    return Layout(
        f"{letterhead(draft)}<div class='gap'></div>{title2}"
        f"<div class='two'><div>{addressee(draft, False)}<div class='gap'></div>{more_particulars}</div>"
        f"<div class='soft'>{particulars}</div></div><div class='gap'></div>{head}{pairs(draft, readings)}"
        f"<div class='gap'></div>{text(draft, 'pay', 2, 3)}",
    )


@template("receipt")
def receipt_till(draft: Draft) -> Layout:
    """A till receipt: centred head, goods with prices, sums."""
    goods, cents = items(draft, 2, 10, draft.rng.choice(("ns", "nqs", "ns")))
    more_particulars = pairs(
        draft, draft.fields(["receipt_number", "cashier", "invoice_date", "start_time", "table_number"], 2, 4), "inline"
    )
    particulars = pairs(draft, totals(draft, cents, ["total", "paid", "change"]), only=("ruled", "leaders"))
    return Layout(
        f"<div class='centre'><div class='large'>{company(draft)}</div><div class='small'>{address_lines(draft)}</div>"
        f"{pairs(draft, draft.fields(['phone', 'tax_id'], 1, 2), 'inline')}</div><hr class='rule'>"
        f"{more_particulars}"
        f"<hr class='rule'>{goods}<hr class='rule'>{particulars}"
        f"<hr class='rule'><div class='centre small'>{text(draft, 'pay', 1, 1)}<div class='bars'></div></div>",
        ROLL,
        5,
        crop=True,
    )


@template("receipt")
def receipt_card(draft: Draft) -> Layout:
    """A card slip: keys on the left, values on the right."""
    fields = draft.fields(
        [
            "receipt_number",
            "invoice_date",
            "start_time",
            "member_id",
            "payment_method",
            "total",
            "tip",
            "reference",
            "office",
        ],
        5,
        9,
    )
    title2 = draft.title(draft.rng.choice(("Customer copy", "CARD RECEIPT", "Merchant copy", "Payment slip")), "h3")
    particulars = pairs(draft, fields, only=("ruled", "leaders", "table"))
    return Layout(
        f"<div class='centre'>{title2}"
        f"{company(draft)}{address_lines(draft)}</div><hr class='rule'>{particulars}"
        f"<div class='gap'></div><div class='centre'>{text(draft, 'pay', 1, 0)}<div class='bars'></div></div>",
        ROLL,
        6,
        crop=True,
    )


@template("receipt", heldout=True)
def receipt_restaurant(draft: Draft) -> Layout:
    """A guest check with table, covers and server."""
    goods, cents = items(draft, 3, 8, "qns" if draft.rng.random() < 0.5 else "ns")
    more_particulars = pairs(
        draft, draft.fields(["table_number", "guests", "cashier", "invoice_date", "start_time"], 3, 5)
    )
    particulars = pairs(draft, totals(draft, cents, ["subtotal", "tax", "total"]), "ruled")
    return Layout(
        f"<div class='centre head huge'>{company(draft)}</div><div class='centre'>{address_lines(draft)}"
        "</div><hr class='thick'>"
        f"{more_particulars}<hr class='rule'>{goods}"
        f"<hr class='rule'>{particulars}<div class='gap'></div>{text(draft, 'pay', 1, 1)}",
        (90, 400),
        7,
        crop=True,
    )


@template("receipt")
def receipt_rent(draft: Draft) -> Layout:
    """A receipt out of a book: lines filled in by hand."""
    fields = draft.fields(
        ["receipt_number", "invoice_date", "customer", "amount_due", "purpose", "payment_method", "landlord"], 5, 7
    )
    hand = "".join(
        f"<div style='margin:.6em 0'>{f.key} <span class='hand large' style='border-bottom:1px solid "
        f"var(--ink);padding:0 1em'>{f.value}</span></div>"
        for f in fields
    )
    return Layout(
        f"<div class='box'><div class='row'>{draft.title('Receipt', 'h2')}<div>{company(draft)}</div>"
        f"</div>{hand}{signature(draft)}</div>",
        (180, 120),
        7,
        crop=True,
    )


@template("receipt")
def receipt_online(draft: Draft) -> Layout:
    """An order confirmation as a shop mails it."""
    goods, cents = items(draft, 1, 5, draft.rng.choice(("nqs", "cnqs")))
    title2 = draft.title(
        draft.rng.choice(
            ("Thank you for your order", "Order confirmation", "Your order is on its way", "Payment received")
        )
    )
    more_particulars = pairs(
        draft,
        draft.fields(
            ["order_number", "order_date", "delivery_date", "payment_method", "email", "tracking_number"], 3, 6
        ),
        only=("grid", "inline", "table"),
    )
    particulars = pairs(draft, totals(draft, cents, ["subtotal", "shipping", "total"]))
    return Layout(
        f"<div class='centre'>{logo(draft)}{title2}"
        f"</div><div class='soft'>{more_particulars}</div>"
        f"<div class='gap'></div>{goods}<div class='gap'></div><div class='two'><div><h4>"
        f"{html.escape(draft.value('company'))}</h4>{addressee(draft)}</div>"
        f"<div>{particulars}</div></div>{text(draft, 'pay', 1, 2)}",
        (170, 230),
        12,
    )


def _transactions(draft: Draft, count: int) -> str:
    rng, manner = draft.rng, draft.manner
    rows = []
    day, balance = 1, rng.randrange(10**4, 10**6)
    for _ in range(count):
        day += rng.randrange(0, 3)
        change = rng.randrange(100, 90000)
        balance += change
        what = rng.choice((draft.value("company"), draft.value("phrase"), draft.words.word(rng).capitalize()))
        rows.append(
            [
                what,
                format_date(manner, manner.year, 1 + rng.randrange(12), min(day, 28)),
                amount(rng, manner, change, False),
                amount(rng, manner, balance, False),
            ]
        )
    heads = [
        heading(draft, options)
        for options in (
            "Details;Transaction;Description;Text;Booking;Payee",
            "Date;Booked;Posted;Value date;Booked on",
            "Amount;Movement;In / out;Debit;Payment",
            "Balance;New balance;Saldo;Remaining",
        )
    ]
    return table(draft, [(heads[0], "word"), (heads[1], "date"), (heads[2], "money"), (heads[3], "money")], rows)


@template("statement")
def statement_bank(draft: Draft) -> Layout:
    """A bank statement: balances above, movements below."""
    title2 = draft.title(
        draft.rng.choice(("Account statement", "Statement of account", "Bank statement", "Monthly statement"))
    )
    particulars = pairs(
        draft, draft.fields(["account", "bic", "start_date", "end_date", "opening_balance", "closing_balance"], 4, 6)
    )
    return Layout(
        f"{letterhead(draft)}<div class='gap'></div>{title2}"
        f"<div class='two'>{addressee(draft, False)}<div>{particulars}</div></div>"
        f"<div class='gap'></div>{_transactions(draft, draft.rng.randint(6, 16))}<div class='gap'></div>"
        f"{prose(draft, 2)}",
    )


@template("statement", heldout=True)
def statement_card(draft: Draft) -> Layout:
    """A credit card statement with a summary in boxes."""
    title2 = draft.title(draft.rng.choice(("Card statement", "Your monthly summary", "Credit card statement")), "h2")
    particulars = pairs(
        draft,
        draft.fields(
            ["closing_balance", "minimum_payment", "due_date", "credit_limit", "interest_rate", "member_id"], 4, 6
        ),
    )
    return Layout(
        f"<div class='band row'><div class='large'>{company(draft)}</div>{title2}</div>"
        f"<div class='gap'></div>{particulars}"
        f"<div class='gap'></div>{_transactions(draft, draft.rng.randint(5, 12))}<div class='gap'></div>"
        f"{text(draft, 'pay', 2, 1)}",
        LETTER,
    )


@template("statement")
def payslip(draft: Draft) -> Layout:
    """A payslip: data of the employee, earnings beside deductions."""
    first, first_head = section_title(draft, "h3")
    second, second_head = section_title(draft, "h3")
    earned = draft.fields(["salary", None, None, None], 3, 4, section=first, invented=0)
    cut = draft.fields(["tax", None, None, None], 3, 4, section=second, invented=0)
    title2 = draft.title(draft.rng.choice(("Payslip", "Salary statement", "Pay advice", "Earnings statement")))
    more_particulars = pairs(
        draft, draft.fields(["employee", "employee_id", "department", "position", "start_date", "end_date"], 4, 6)
    )
    particulars = pairs(
        draft, draft.fields(["net_pay", "account"], 1, 2, invented=0), "table" if draft.split == "train" else "line"
    )
    return Layout(
        f"<div class='row'><div>{company(draft)}{address_lines(draft)}</div>{title2}</div><hr "
        "class='thick'>"
        f"{more_particulars}<div class='gap'></div>"
        f"<div class='two'><div>{first_head}{pairs(draft, earned)}</div><div>{second_head}"
        f"{pairs(draft, cut)}</div></div><hr class='thick'>"
        f"<div class='large'>{particulars}</div>",
        draft.rng.choice((A4, A5)),
        12,
    )


@template("statement", heldout=True)
def quotation(draft: Draft) -> Layout:
    """An offer with validity and terms."""
    goods, cents = items(draft, 3, 7)
    title2 = draft.title(draft.rng.choice(("Quotation", "Offer", "Estimate", "Our proposal")))
    particulars = pairs(
        draft,
        draft.fields(
            ["quote_number", "invoice_date", "end_date", "salesperson", "delivery_date", "payment_terms"], 3, 6
        ),
    )
    return Layout(
        f"<div class='row'><div>{logo(draft, 56)}</div><div class='right'>{title2}{company(draft)}</div>"
        "</div>"
        f"<div class='two'>{addressee(draft)}<div>{particulars}</div></div>"
        f"<div class='gap'></div>{prose(draft, 1)}{goods}{_sums(draft, cents)}{text(draft, 'pay', 2, 1)}"
        f"{signature(draft)}",
    )


@template("statement")
def delivery_note(draft: Draft) -> Layout:
    """A delivery note: what was sent, how, and who received it."""
    goods, _ = items(draft, 3, 10, draft.rng.choice(("cnq", "nq")))
    title2 = draft.title(draft.rng.choice(("Delivery note", "Packing list", "Packing slip", "Despatch advice")))
    particulars = pairs(
        draft, draft.fields(["order_number", "delivery_date", "carrier", "tracking_number", "packages", "weight"], 3, 6)
    )
    return Layout(
        f"{title2}<div class='three'><div>{company(draft)}{address_lines(draft)}</div>"
        f"{addressee(draft)}<div>{particulars}</div></div>"
        f"<div class='gap'></div>{goods}<div class='gap'></div><div class='row'>{signature(draft)}"
        f"{signature(draft)}</div>",
    )


@template("statement")
def purchase_order(draft: Draft) -> Layout:
    """A purchase order on landscape paper."""
    goods, cents = items(draft, 3, 8, "cnqps")
    title2 = draft.title(draft.rng.choice(("Purchase order", "Order form", "Works order")))
    more_particulars = pairs(
        draft, draft.fields(["order_number", "order_date", "contact", "delivery_date"], 3, 4), only=("boxed", "table")
    )
    particulars = pairs(draft, draft.fields(["supplier", "department", "project", "payment_terms"], 2, 4))
    return Layout(
        f"<div class='row'>{title2}<div>{more_particulars}</div></div>"
        f"<hr class='thick'><div class='three'><div>{company(draft)}{address_lines(draft)}</div>"
        f"{addressee(draft)}<div>{particulars}</div></div>"
        f"<div class='gap'></div>{goods}{_sums(draft, cents)}",
        (297, 210),
        14,
    )
