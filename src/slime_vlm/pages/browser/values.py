"""Printed values of every kind in the manner of one document: its currency, its dates, its names."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from slime_vlm.pages.browser.vocabulary import QUANTITIES, VOCABULARIES
from slime_vlm.pages.values import is_heldout
from slime_vlm.pages.word_lists import Words, invented_word, listed

_FIRST = listed(
    "Ada Adam Agnes Ahmed Aisha Alan Alba Alice Amara Ana Andre Anika Anton Aria Arne Astrid Bea Ben "
    "Bianca Boris Bruno "
    "Carla Cem Chloe Clara Colin Dara David Diego Dina Dora Edgar Elena Elias Ella Emil Emma Erik "
    "Esther Eva Farid Felix "
    "Fiona Frank Freya Gita Greta Hana Hans Hugo Ian Ida Ines Ingrid Iris Ivan Jana Jonas Joan Julia "
    "Karim Karl Kaya Kim "
    "Lara Lars Lea Leo Liam Lina Lucas Luis Mads Maria Mark Marta Max Maya Mia Milan Mina Mona Nadia "
    "Nina Noah Nora Olga "
    "Omar Oscar Otto Paul Pavel Petra Priya Rafael Rana Ravi Rosa Ruth Sam Sara Selma Sofia Stefan "
    "Tara Theo Tom Uma Vera "
    "Victor Wanda Wei Yara Yuki Zoe Zoltan"
)
_LAST = listed(
    "Abbott Adler Ahlberg Alvarez Anand Arnold Baker Bauer Becker Berg Bianchi Blake Bosch Brandt Brooks Carter Castro "
    "Chen Clarke Costa Dahl Davies Diaz Dubois Duran Eaton Ebert Egger Ellis Engel Evans Falk "
    "Farrell Fischer Ford Fuchs "
    "Garcia Gruber Haas Hall Hansen Harper Hassan Hoffman Holt Hughes Huber Iqbal Jansen Jensen Jones Kahn Kaur Keller "
    "Khan Klein Koch Kumar Lang Larsen Lee Lehmann Lindt Lopez Lund Maier Marsh Martin Meyer Moore Morris Moser Nagy "
    "Nash Neumann Novak Okafor Olsen Ortiz Park Patel Perez Perry Peters Pope Popov Quinn Rao Reed "
    "Reyes Rossi Roth Ruiz "
    "Russo Ryan Sato Schmidt Shah Silva Simon Singh Smith Sousa Stone Suzuki Tan Thorne Toth Turner Vogel Wagner Walsh "
    "Ward Weber West White Wolf Wong Wood Wright Yilmaz Young Ziegler"
)
_COMPANY_ENDS = listed(
    "Ltd;Ltd.;Inc.;LLC;GmbH;AG;Group;& Sons;& Co.;Holdings;Partners;Services;Trading;Systems;Works;Supplies;Logistics;"
    "Electric;Foods;Clinic;Bakery;Hardware;Consulting;Energy;Labs;Studio;Print;Motors;Travel;Bank;Insurance;Institute",
    ";",
)
_PLACES = listed(
    "Aberdeen;Antwerp;Austin;Bergen;Boston;Bristol;Bruges;Cardiff;Chicago;Cork;Dallas;Denver;Dublin;Exeter;Galway;Geneva;"
    "Ghent;Hamburg;Leeds;Leipzig;Lisbon;Lyon;Madrid;Malmo;Miami;Milan;Munich;Nantes;Oslo;Oxford;Paris;Perth;Porto;"
    "Prague;Reno;Riga;Salem;Seattle;Seville;Tampa;Turin;Utrecht;Vienna;Warsaw;York;Zurich",
    ";",
)
_PLACE_ENDS = listed("ton ham field ford bridge burg haven mouth stead wick port dale hill wood by")
_STREETS = listed("Street;St.;Road;Rd;Avenue;Ave.;Lane;Drive;Way;Square;Court;Hill;Terrace;Close;Park;Quay", ";")
MONTHS = listed("January February March April May June July August September October November December")
WEEKDAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_UNITS = listed(
    "mm;cm;m;km;kg;g;mg;t;l;ml;kWh;W;kW;V;A;mA;Hz;kHz;MHz;GB;MB;bar;hPa;°C;°F;mg/l;mmol/l;g/dl;km/h;m²;m³;dB;lm;Nm;px;%;"
    "rpm;µm;in;lb;oz;ppm",
    ";",
)
_STATES = listed(
    "On;Off;Enabled;Disabled;Automatic;Manual;High;Low;Medium;Always;Never;Yes;No;Ask first;Wi-Fi only;Default;Open;"
    "Closed;Pending;Paid;Approved;Rejected;Active;Inactive;Complete;In progress;Shipped;Delivered;Cancelled;Passed;"
    "Failed;Confirmed;Draft;Overdue;Standard;Express;Economy;Premium;Basic;Dark;Light;Weekly;Monthly;Daily",
    ";",
)
_NUMBERS = listed("two three four five six eight ten twelve")
_COLOURS = listed("black white red blue green grey silver yellow orange brown beige navy teal purple ivory")
_LANGUAGES = listed("English German French Spanish Italian Dutch Danish Polish Turkish Hindi Arabic Portuguese Swedish")
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_TLDS = listed("com org net co.uk de eu info io example")

# Kinds of so few values that both splits print the same ones.
SHARED_KINDS = frozenset(
    {"state", "weekday", "colour", "language", "rating", "size", "year", "time", "period", "minutes", *VOCABULARIES}
)


@dataclass(frozen=True)
class Manner:
    """How one document prints values.

    Attributes:
        currency: Sign or code of its currency.
        before: Whether the sign stands before the amount.
        comma: Whether decimals follow a comma.
        date: Index of its way to write dates.
        hours: 12 or 24.
        phone: Index of its way to write phone numbers.
        year: The year about which its dates lie.
    """

    currency: str
    before: bool
    comma: bool
    date: int
    hours: int
    phone: int
    year: int


def draw_manner(rng: random.Random) -> Manner:
    """Draw how a document prints its values."""
    currency = rng.choice(["$", "$", "$", "£", "£", "€", "EUR", "USD", "GBP", "CHF", "", "kr", "Fr."])
    before = currency in ("$", "£", "¥") or (currency in ("USD", "CHF", "EUR", "GBP", "€") and rng.random() < 0.5)
    comma = currency in ("EUR", "€", "kr", "") and rng.random() < 0.5
    return Manner(
        currency=currency,
        before=before,
        comma=comma,
        date=rng.randrange(10),
        hours=rng.choice((24, 24, 12)),
        phone=rng.randrange(5),
        year=rng.choice((*range(2014, 2031), *range(2019, 2028), rng.randrange(1962, 2035))),
    )


def _digits(rng: random.Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count))


def _grouped(number: int, decimals: str, comma: bool) -> str:
    text = f"{number:,}"
    if comma:
        text = text.replace(",", ".")
    return text + (("," if comma else ".") + decimals if decimals else "")


def amount(rng: random.Random, manner: Manner, cents: int, signed: bool = True) -> str:
    """Print an amount of so many cents; without the currency's sign where a column's heading says it."""
    text = _grouped(cents // 100, f"{cents % 100:02d}", manner.comma)
    if not signed or not manner.currency:
        return text
    if manner.before:
        return manner.currency + ("" if len(manner.currency) == 1 else " ") + text
    return f"{text} {manner.currency}"


def _money(rng: random.Random, manner: Manner, words: Words) -> str:
    cents = rng.randrange(50, 10 ** rng.choice((4, 4, 5, 5, 6, 7)))
    return amount(rng, manner, cents - cents % 100 if rng.random() < 0.15 else cents)


def format_date(manner: Manner, year: int, month: int, day: int) -> str:
    """Print a date in the document's way."""
    name = MONTHS[month - 1]
    return (
        f"{day:02d}/{month:02d}/{year}",
        f"{month:02d}/{day:02d}/{year}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}.{month:02d}.{year}",
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{day} {name[:3]} {year}",
        f"{name[:3]} {day}, {year}",
        f"{day:02d}-{name[:3].upper()}-{year}",
        f"{day}/{month}/{year % 100:02d}",
    )[manner.date]


def _date(rng: random.Random, manner: Manner, words: Words) -> str:
    return format_date(manner, manner.year + rng.choice((0, 0, 0, 1, -1)), rng.randrange(1, 13), rng.randrange(1, 29))


def format_time(manner: Manner, minutes: int) -> str:
    """Print a time of day, minutes after midnight."""
    hour, minute = divmod(minutes % 1440, 60)
    if manner.hours == 24:
        return f"{hour:02d}:{minute:02d}"
    return f"{hour % 12 or 12}:{minute:02d} {'am' if hour < 12 else 'pm'}"


def _time(rng: random.Random, manner: Manner, words: Words) -> str:
    return format_time(manner, rng.randrange(288) * 5)


def _integer(rng: random.Random, manner: Manner, words: Words) -> str:
    number = rng.randrange(10 ** rng.choice((1, 2, 2, 3, 4, 5)))
    return _grouped(number, "", manner.comma) if number > 9999 or rng.random() < 0.5 else str(number)


def _code(rng: random.Random, manner: Manner, words: Words) -> str:
    def letters(count: int) -> str:
        return "".join(rng.choice(_LETTERS) for _ in range(count))

    form = rng.randrange(8)
    if form == 0:
        return letters(rng.choice((1, 2, 3))) + "-" + _digits(rng, rng.choice((3, 4, 5, 6)))
    if form == 1:
        return _digits(rng, rng.choice((4, 5, 6, 7, 8, 9)))
    if form == 2:
        return "".join(rng.choice(_LETTERS + "23456789") for _ in range(rng.choice((5, 6, 8, 10))))
    if form == 3:
        return f"{manner.year}-{_digits(rng, rng.choice((3, 4, 5)))}"
    if form == 4:
        return f"{_digits(rng, rng.choice((2, 3, 4)))}/{_digits(rng, 4)}/{letters(1)}"
    if form == 5:
        return f"#{_digits(rng, rng.choice((3, 4, 5, 6)))}"
    if form == 6:
        return f"{letters(2)} {_digits(rng, 3)} {_digits(rng, 3)}"
    return f"{letters(2)}{_digits(rng, 2)}.{_digits(rng, 4)}-{_digits(rng, 2)}"


def _surname(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return rng.choice(_LAST)
    if draw < 0.9:
        return invented_word(rng).capitalize()
    return rng.choice(_LAST) + "-" + rng.choice(_LAST)


def _person(rng: random.Random, manner: Manner, words: Words) -> str:
    first = rng.choice(_FIRST) if rng.random() < 0.8 else invented_word(rng).capitalize()
    form = rng.randrange(10)
    if form < 6:
        return f"{first} {_surname(rng)}"
    if form == 6:
        return f"{first[0]}. {_surname(rng)}"
    if form == 7:
        return f"{rng.choice(('Dr.', 'Mr', 'Mrs', 'Ms', 'Prof.', 'Dr'))} {first} {_surname(rng)}"
    if form == 8:
        return f"{first} {rng.choice(_LETTERS)}. {_surname(rng)}"
    return f"{_surname(rng)}, {first}"


def _company(rng: random.Random, manner: Manner, words: Words) -> str:
    form = rng.randrange(4)
    end = rng.choice(_COMPANY_ENDS)
    if form == 0:
        return f"{_surname(rng)} {end}"
    if form == 1:
        return f"{words.word(rng).title()} {words.word(rng).title()} {end}"
    if form == 2:
        return f"{_surname(rng)} & {_surname(rng)}"
    return f"{invented_word(rng).capitalize()} {end}"


def _place(rng: random.Random, manner: Manner, words: Words) -> str:
    if rng.random() < 0.5:
        return rng.choice(_PLACES)
    return (invented_word(rng)[:6] + rng.choice(_PLACE_ENDS)).capitalize()


def _street(rng: random.Random, words: Words) -> str:
    name = rng.choice((words.word(rng).title(), rng.choice(_LAST), invented_word(rng).capitalize()))
    return f"{rng.randrange(1, 399)} {name} {rng.choice(_STREETS)}"


def postcode(rng: random.Random) -> str:
    """Print a postal code."""
    form = rng.randrange(3)
    if form == 0:
        return _digits(rng, 5)
    if form == 1:
        return _digits(rng, 4)
    return (
        f"{rng.choice(_LETTERS)}{rng.choice(_LETTERS)}{rng.randrange(1, 20)} {rng.randrange(1, 10)}"
        f"{rng.choice(_LETTERS)}{rng.choice(_LETTERS)}"
    )


def _address(rng: random.Random, manner: Manner, words: Words) -> str:
    return f"{_street(rng, words)}, {postcode(rng)} {_place(rng, manner, words)}"


def _phone(rng: random.Random, manner: Manner, words: Words) -> str:
    return (
        f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}",
        f"+{rng.choice(('44', '49', '1', '33', '41', '45'))} {_digits(rng, 2)} {_digits(rng, 3)} {_digits(rng, 4)}",
        f"0{_digits(rng, 3)} {_digits(rng, 6)}",
        f"0{_digits(rng, 2)}/{_digits(rng, 3)} {_digits(rng, 2)} {_digits(rng, 2)}",
        f"{_digits(rng, 3)}-{_digits(rng, 3)}-{_digits(rng, 4)}",
    )[manner.phone]


def _domain(rng: random.Random, words: Words) -> str:
    name = rng.choice((words.word(rng), invented_word(rng), words.word(rng) + "-" + words.word(rng)))
    return f"{name}.{rng.choice(_TLDS)}"


def _email(rng: random.Random, manner: Manner, words: Words) -> str:
    user = rng.choice(
        (
            rng.choice(("info", "office", "billing", "orders", "help", "contact")),
            f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}".lower(),
            words.word(rng) + str(rng.randrange(100)),
        )
    )
    return f"{user}@{_domain(rng, words)}"


def _url(rng: random.Random, manner: Manner, words: Words) -> str:
    return (
        rng.choice(("www.", "www.", "https://", "")) + _domain(rng, words) + rng.choice(("", "", "/" + words.word(rng)))
    )


def _measure(rng: random.Random, manner: Manner, words: Words) -> str:
    whole = rng.randrange(10 ** rng.choice((1, 2, 2, 3, 4)))
    decimals = "" if rng.random() < 0.45 else _digits(rng, rng.choice((1, 1, 2)))
    text = _grouped(whole, decimals, manner.comma)
    unit = rng.choice(_UNITS)
    return text + ("" if unit == "%" else rng.choice((" ", " ", " ", ""))) + unit


def _percent(rng: random.Random, manner: Manner, words: Words) -> str:
    text = str(rng.randrange(101))
    if rng.random() < 0.5:
        text += ("," if manner.comma else ".") + str(rng.randrange(10))
    return text + rng.choice(("%", "%", " %"))


def _duration(rng: random.Random, manner: Manner, words: Words) -> str:
    form = rng.randrange(5)
    count = rng.randrange(2, 90)
    if form == 0:
        return f"{rng.randrange(1, 24)} h {rng.randrange(1, 60)} min"
    if form == 1:
        return f"{rng.randrange(1, 30)}:{rng.randrange(60):02d}"
    return f"{count} {rng.choice(('days', 'weeks', 'months', 'years', 'hours', 'minutes', 'min', 'seconds'))}"


def _period(rng: random.Random, manner: Manner, words: Words) -> str:
    """Print a time of days to years."""
    unit, most = rng.choice((("day", 90), ("week", 16), ("month", 36), ("year", 15), ("working day", 20)))
    if rng.random() < 0.2:
        number, count = rng.choice(_NUMBERS), 2
    else:
        count = rng.randrange(1, most)
        number = str(count)
    return f"{number} {unit}{'' if count == 1 else 's'}"


def _minutes(rng: random.Random, manner: Manner, words: Words) -> str:
    """Print a time of seconds to hours."""
    form = rng.randrange(6)
    if form == 0:
        return f"{rng.randrange(1, 9)} h {rng.randrange(1, 60)} min"
    if form == 1:
        return f"{rng.choice(_NUMBERS)} {rng.choice(('minutes', 'hours'))}"
    if form == 2:
        return rng.choice(("half an hour", "an hour", "a quarter of an hour", "one and a half hours", "2½ hours"))
    if form == 3:
        return f"{rng.randrange(2, 25)} {rng.choice(('hours', 'h'))}"
    return f"{rng.randrange(2, 91)} {rng.choice(('minutes', 'minutes', 'min', 'seconds'))}"


def _quantity(rng: random.Random, manner: Manner, quantity: str) -> str:
    """Print a number and a unit of a quantity."""
    unit, most = rng.choice(list(QUANTITIES[quantity].items()))
    whole = rng.randrange(2, most)
    decimals = _digits(rng, 1) if whole < 100 and len(unit) < 5 and rng.random() < 0.35 else ""
    gap = "" if unit in ("%", "°C", "g", "kg", "ml", "V", "W") and rng.random() < 0.3 else " "
    return _grouped(whole, decimals, manner.comma) + gap + unit


def _word(rng: random.Random, manner: Manner, words: Words) -> str:
    return words.word(rng).capitalize() if rng.random() < 0.7 else words.word(rng)


def _phrase(rng: random.Random, manner: Manner, words: Words) -> str:
    text = " ".join(words.word(rng) for _ in range(rng.choice((2, 2, 3, 4))))
    return text.capitalize() if rng.random() < 0.7 else text.title()


def _account(rng: random.Random, manner: Manner, words: Words) -> str:
    if rng.random() < 0.5:
        country = rng.choice(("DE", "GB", "FR", "CH", "NL", "AT"))
        return country + _digits(rng, 2) + "".join(f" {_digits(rng, 4)}" for _ in range(rng.choice((3, 4))))
    return rng.choice(
        (_digits(rng, 8), f"{_digits(rng, 4)} {_digits(rng, 4)} {_digits(rng, 4)}", f"**** {_digits(rng, 4)}")
    )


def _range(rng: random.Random, manner: Manner, words: Words) -> str:
    low = rng.randrange(1, 200)
    high = low + rng.randrange(1, 200)
    return f"{low}{rng.choice((' - ', '-', ' to '))}{high}"


def _size(rng: random.Random, manner: Manner, words: Words) -> str:
    numbers = [str(rng.randrange(5, 400)) for _ in range(rng.choice((2, 2, 3)))]
    return rng.choice((" x ", "x", " × ")).join(numbers) + rng.choice((" mm", " cm", "", " in"))


_DRAW: dict[str, Callable[[random.Random, Manner, Words], str]] = {
    "money": _money,
    "date": _date,
    "time": _time,
    "integer": _integer,
    "code": _code,
    "person": _person,
    "company": _company,
    "place": _place,
    "address": _address,
    "phone": _phone,
    "email": _email,
    "url": _url,
    "measure": _measure,
    "percent": _percent,
    "duration": _duration,
    "period": _period,
    "minutes": _minutes,
    "word": _word,
    "phrase": _phrase,
    "account": _account,
    "range": _range,
    "size": _size,
    "count": lambda rng, manner, words: str(rng.randrange(1, rng.choice((10, 30, 100)))),
    "state": lambda rng, manner, words: rng.choice(_STATES),
    "weekday": lambda rng, manner, words: rng.choice(WEEKDAYS),
    "colour": lambda rng, manner, words: rng.choice(_COLOURS),
    "language": lambda rng, manner, words: rng.choice(_LANGUAGES),
    "rating": lambda rng, manner, words: f"{rng.randrange(1, 5)}.{rng.randrange(10)}" + rng.choice(("", " / 5", "/5")),
    "year": lambda rng, manner, words: str(rng.randrange(1950, 2035)),
    "version": lambda rng, manner, words: ".".join(str(rng.randrange(20)) for _ in range(rng.choice((2, 3)))),
    "postcode": lambda rng, manner, words: postcode(rng),
    "street": lambda rng, manner, words: _street(rng, words),
    "plate": lambda rng, manner, words: _code(rng, manner, words),
}

KINDS = (*_DRAW, *QUANTITIES, *VOCABULARIES)
"""Kinds of values."""


def draw_value(rng: random.Random, kind: str, manner: Manner, words: Words) -> str:
    """Print a value of a kind; held-out strings are for the held-out split alone, and the other way round."""
    for _ in range(60):
        if kind in VOCABULARIES:
            value = rng.choice(VOCABULARIES[kind])
        elif kind in QUANTITIES:
            value = _quantity(rng, manner, kind)
        else:
            value = _DRAW[kind](rng, manner, words)
        if kind in SHARED_KINDS or len(value) < 4 or is_heldout(value) == (words.split == "heldout"):
            break
    return value
