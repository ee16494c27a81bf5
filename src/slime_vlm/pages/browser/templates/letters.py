"""Letters, notices and certificates: running text that states something."""

from __future__ import annotations

import html

from slime_vlm.pages.browser.blocks import (
    address_lines,
    addressee,
    company,
    letterhead,
    logo,
    pairs,
    prose,
    row_names,
    signature,
    text,
)
from slime_vlm.pages.browser.draft import Draft
from slime_vlm.pages.browser.templates.registry import A4, A5, LETTER, Layout, template

_GREETINGS = ("Dear Sir or Madam,", "Dear customer,", "Hello,", "To whom it may concern,", "Dear all,", "Good morning,")
_CLOSINGS = ("Yours faithfully,", "Yours sincerely,", "Kind regards,", "Best wishes,", "With thanks,", "Regards,")


def _body(draft: Draft, area: str, paragraphs: int, facts: int = 2) -> str:
    rng = draft.rng
    parts = [text(draft, area, facts, rng.randint(1, 4)) for _ in range(paragraphs)]
    return f"<p>{rng.choice(_GREETINGS)}</p>{''.join(parts)}<p>{rng.choice(_CLOSINGS)}</p>{signature(draft)}"


def _subject(draft: Draft) -> str:
    words = draft.words
    forms = (
        f"Your {words.word(draft.rng)} {words.word(draft.rng)}",
        f"{words.word(draft.rng)} and {words.word(draft.rng)}".capitalize(),
        f"Regarding the {words.word(draft.rng)} of the {words.word(draft.rng)}",
        f"Notice of {words.word(draft.rng)} {words.word(draft.rng)}",
        f"Change of {words.word(draft.rng)}",
    )
    return draft.rng.choice(forms)


@template("letter")
def letter_business(draft: Draft) -> Layout:
    """A firm's letter: addressee, references, subject, text."""
    particulars = pairs(
        draft,
        draft.fields(["reference", "invoice_date", "contact", "customer_number"], 1, 4),
        only=("grid", "inline", "table"),
    )
    return Layout(
        f"{letterhead(draft)}<div class='gap'></div>{addressee(draft, False)}<div class='gap'></div>"
        f"<div class='small'>{particulars}</div>"
        f"<div class='gap'></div>{draft.title(_subject(draft), 'h3')}{_body(draft, 'letter', draft.rng.randint(2, 4))}",
        A4,
        22,
    )


@template("letter")
def letter_private(draft: Draft) -> Layout:
    """A private letter without a printed head."""
    place = f"{html.escape(draft.value('place'))}, "
    date = draft.unkeyed("invoice_date")
    wording = _body(draft, "letter", draft.rng.randint(2, 4))
    return Layout(
        f"<div class='right'>{draft.named('issuer', draft.value('person'))}{address_lines(draft)}</div>"
        f"{addressee(draft, False)}<div class='gap'></div>"
        f"<div class='right'>{place}{date}</div><div class='gap'></div>{wording}",
        draft.rng.choice((A4, LETTER)),
        25,
    )


@template("letter", heldout=True)
def letter_reminder(draft: Draft) -> Layout:
    """A reminder of payment with the amounts in a box."""
    title2 = draft.title(
        draft.rng.choice(("Payment reminder", "Second reminder", "Final notice", "Friendly reminder")), "h2"
    )
    particulars = pairs(
        draft, draft.fields(["invoice_number", "invoice_date", "due_date", "amount_due", "fee", "account"], 4, 6)
    )
    return Layout(
        f"<div class='row'><div>{addressee(draft, False)}</div><div class='right'>{logo(draft)}<div>"
        f"{company(draft)}</div>{address_lines(draft)}</div></div><div class='gap'></div>"
        f"{title2}{text(draft, 'letter', 1, 2)}"
        f"<div class='box'>{particulars}</div><div class='gap'></div>"
        f"{text(draft, 'pay', 2, 1)}{signature(draft)}",
        A4,
        20,
    )


@template("letter")
def letter_offer_of_work(draft: Draft) -> Layout:
    """An offer of a job: text with the terms in a list."""
    title2 = draft.title(draft.rng.choice(("Offer of employment", "Your new position", "Letter of appointment")), "h2")
    particulars = pairs(
        draft, draft.fields(["position", "department", "manager", "start_date", "salary", "notice_period"], 3, 5)
    )
    return Layout(
        f"{letterhead(draft, 2)}<div class='gap'></div>{addressee(draft, False)}<div class='gap'></div>"
        f"{title2}"
        f"{text(draft, 'letter', 2, 2)}{particulars}<div class='gap'></div>{_body(draft, 'letter', 1)}",
        A4,
        20,
    )


@template("letter", heldout=True)
def memo(draft: Draft) -> Layout:
    """A memo within a firm."""
    particulars = pairs(
        draft, draft.fields(["recipient", "author", "invoice_date", "subject", "priority"], 4, 5, invented=0), "line"
    )
    return Layout(
        f"{draft.title(draft.rng.choice(('Memo', 'Memorandum', 'MEMO', 'Internal note')))}<hr class='thick'>"
        f"{particulars}<div class='gap'></div>"
        f"{text(draft, 'letter', 2, 3)}{text(draft, 'any', 2, 2)}",
        LETTER,
        22,
    )


@template("letter")
def email_printed(draft: Draft) -> Layout:
    """A printed e-mail."""
    particulars = pairs(
        draft,
        draft.fields(["sender", "recipient", "invoice_date", "subject", "email"], 3, 5, invented=0),
        only=("inline", "table"),
    )
    return Layout(
        f"<div class='box'>{particulars}</div><div class='gap'></div>"
        f"{_body(draft, draft.rng.choice(('letter', 'pay', 'event')), draft.rng.randint(1, 3))}",
        (190, 230),
        14,
    )


@template("letter")
def minutes_of_meeting(draft: Draft) -> Layout:
    """Minutes: facts of the meeting, numbered points, decisions."""
    points = "".join(
        f"<h4>{i}. {html.escape(name)}</h4>{text(draft, 'any', 1, 2)}"
        for i, name in enumerate(row_names(draft, draft.rng.randint(3, 5)), 1)
    )
    title2 = draft.title(
        draft.rng.choice(("Minutes of the meeting", "Meeting notes", "Minutes", "Protocol of the board"))
    )
    particulars = pairs(
        draft, draft.fields(["meeting_date", "start_time", "venue", "host", "author", "attendance"], 4, 6)
    )
    return Layout(
        f"{title2}{particulars}<hr class='rule'>{points}",
        A4,
        18,
    )


@template("letter", heldout=True)
def contract(draft: Draft) -> Layout:
    """An agreement with numbered clauses."""
    clauses = "".join(
        f"<h4>§ {i} {html.escape(name)}</h4>{text(draft, draft.rng.choice(('letter', 'any', 'pay')), 1, 2)}"
        for i, name in enumerate(row_names(draft, draft.rng.randint(4, 6), 2), 1)
    )
    title2 = draft.title(draft.rng.choice(("Rental agreement", "Service contract", "Agreement", "Contract of sale")))
    particulars = pairs(
        draft, draft.fields(["landlord", "tenant", "contract_number", "start_date", "rent", "notice_period"], 4, 6)
    )
    return Layout(
        f"<div class='centre'>{title2}</div>"
        f"{particulars}<div class='gap'></div>{clauses}<div class='row'>{signature(draft)}{signature(draft)}"
        "</div>",
        A4,
        20,
    )


@template("certificate")
def certificate(draft: Draft) -> Layout:
    """A certificate on landscape paper, all in the middle."""
    rng = draft.rng
    title2 = draft.title(
        rng.choice(
            ("Certificate of attendance", "Certificate", "Diploma", "Award of merit", "Certificate of completion")
        )
    )
    wording = rng.choice(("This is to certify that", "Awarded to", "We hereby confirm that", "Presented to"))
    named2 = draft.named("recipient", draft.value("person"))
    particulars = pairs(
        draft,
        draft.fields(["course", "exam_date", "grade", "duration", "teacher", "reference"], 3, 5),
        only=("grid", "inline"),
    )
    return Layout(
        "<div class='centre' style='border:4px double var(--accent);padding:14mm;min-height:178mm;font-size:1.35em'>"
        f"<div style='font-size:1.4em'>{title2}</div>"
        f"<p>{wording}</p><div class='hand huge'>{named2}</div><div class='gap'></div>"
        f"{text(draft, 'any', 1, 1)}{particulars}<div class='gap'></div>"
        f"<div class='row'>{signature(draft)}{logo(draft, 64)}{signature(draft)}</div></div>",
        (297, 210),
        14,
    )


@template("certificate", heldout=True)
def record_of_birth(draft: Draft) -> Layout:
    """An official record: numbered entries between rules."""
    entries = draft.fields(
        [
            "applicant",
            "birth_date",
            "birth_place",
            "sex",
            "nationality",
            "address",
            "author",
            "report_date",
            "reference",
        ],
        6,
        9,
    )
    body = "".join(
        f"<div class='row' style='border-bottom:1px solid var(--rule);padding:.3em 0'><div>{i}. {f.key}"
        f"</div><div class='hand'>{f.value}</div></div>"
        for i, f in enumerate(entries, 1)
    )
    title2 = draft.title(draft.rng.choice(("Extract from the register", "Record of birth", "Civil register")))
    return Layout(
        f"<div class='centre'>{logo(draft, 60)}{title2}{company(draft)}</div><div class='gap'></div>{body}"
        f"<div class='gap'></div>{signature(draft)}",
        A5,
        12,
    )


@template("notice")
def notice_public(draft: Draft) -> Layout:
    """A notice on a wall: large heading, few facts."""
    particulars = pairs(
        draft,
        draft.fields(["meeting_date", "start_time", "venue", "contact", "phone"], 3, 5),
        only=("grid", "inline", "stacked"),
    )
    return Layout(
        "<div class='centre' style='font-size:1.25em'><div style='font-size:1.5em'>"
        f"{draft.title(_subject(draft))}</div>{text(draft, 'letter', 2, 1)}"
        f"{particulars}<div class='gap'></div>{company(draft)}</div>",
        draft.rng.choice((A4, A5, (210, 148))),
        16,
    )


@template("notice")
def poster_of_event(draft: Draft) -> Layout:
    """A poster with a coloured block."""
    particulars = pairs(
        draft,
        draft.fields(["event", "start_date", "start_time", "venue", "price", "website", "hotline"], 4, 7),
        only=("grid", "table", "stacked"),
    )
    return Layout(
        "<div class='band centre' style='padding:16mm 8mm'><div style='font-size:1.6em'>"
        f"{draft.title(' '.join(row_names(draft, 1)))}</div><div class='large'>"
        f"{draft.named('issuer', draft.value('company'))}</div></div><div class='gap'></div>"
        f"<div class='large'>{particulars}</div><div class='gap'></div>{text(draft, 'event', 2, 1)}",
        A5,
        10,
    )


@template("notice", heldout=True)
def invitation(draft: Draft) -> Layout:
    """An invitation card."""
    title2 = draft.title(draft.rng.choice(("You are invited", "Save the date", "Invitation", "Join us")))
    particulars = pairs(draft, draft.fields(["host", "event", "meeting_date", "start_time", "venue", "reply_by"], 4, 6))
    return Layout(
        f"<div class='centre'><div class='hand'>{title2}</div>{text(draft, 'event', 2, 0)}{particulars}</div>",
        (148, 148),
        14,
    )


@template("notice")
def article_of_newspaper(draft: Draft) -> Layout:
    """A newspaper's article in two columns."""
    named2 = draft.named(
        "issuer",
        "The "
        + " ".join(row_names(draft, 1, 1))
        + " "
        + draft.rng.choice(("Times", "Post", "Herald", "Courier", "Gazette")),
    )
    particulars = pairs(draft, draft.fields(["invoice_date", "price", "version"], 2, 3), "inline")
    paragraphs = "".join(text(draft, "letter", 2, 4) for _ in range(3))
    return Layout(
        f"<div class='centre head huge' style='border-bottom:3px double'>{named2}</div>"
        f"<div class='row small'>{particulars}</div><hr class='rule'>{draft.title(_subject(draft))}"
        f"<div style='columns:2;column-gap:8mm;text-align:justify'>{paragraphs}{prose(draft, 6)}</div>",
        A4,
        14,
    )
