"""The vocabulary of pages: keys with their printed variants and value types, table words, towns, shapes, wordings."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import lru_cache

from slime_vlm.pages.page import ABSENT


@dataclass(frozen=True)
class Key:
    """A key that a form may print with a value.

    Attributes:
        words: The one or two vocabulary words that represent it.
        value_type: Type of its value, see `draw_value`.
        printed: How it may be printed, in title case.
        asks: Wordings of its own, beside those of its value type.
    """

    words: tuple[str, ...]
    value_type: str
    printed: tuple[str, ...]
    asks: tuple[str, ...] = ()

    @property
    def phrase(self) -> str:
        """The words as they appear in questions."""
        return " ".join(self.words)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _keys(value_type: str, *entries: str) -> list[Key]:
    """Parse entries "words | printed; printed | wording; wording". Without printed variants, the words are printed."""
    found = []
    for entry in entries:
        phrase, printed, asks, *_ = f"{entry}||".split("|")
        variants, wordings = ([p.strip() for p in part.split(";") if p.strip()] for part in (printed, asks))
        phrase = phrase.strip()
        found.append(Key(tuple(phrase.split()), value_type, (phrase.capitalize(), *variants), tuple(wordings)))
    return found


KEYS: tuple[Key, ...] = (
    *_keys(
        "money",
        "total || How much in total?; What does it come to in total?; total sum",
        "subtotal | Sub-total; Sub total",
        "tax || How much tax is there?; How much tax do I pay?",
        "discount | Disc.",
        "shipping || How much does shipping cost?",
        "deposit",
        "balance",
        "amount due | Amt due; Amt. due | How much is due?; How much do I owe?; How much do I have to pay?",
        "amount paid | Amt paid | How much was paid?",
        "tip",
        "service fee | Serv. fee",
        "rent",
        "salary",
        "credit",
        "change",
        "cash",
        "bonus",
        "fine",
        "insurance",
        "loan",
    ),
    *_keys(
        "code",
        "invoice number | Invoice no; Invoice No.; Inv. no.; Invoice #; Inv no",
        "order number | Order no; Order No.; Order #",
        "account number | Account no; Acct. no.; Account #; Acct no",
        "serial number | Serial no; S/N",
        "batch number | Batch no; Batch #",
        "ticket number | Ticket no; Ticket #",
        "reference | Ref.; Ref",
        "patient id | Patient ID",
        "member id | Member ID",
        "tax id | Tax ID",
        "product code | Prod. code",
        "zip code | ZIP; Zip",
        "license plate | Licence plate",
        "flight | Flight no",
        "seat",
        "gate",
        "voucher",
        "password || What is the password?",
        "locker | Locker no",
        "passport",
    ),
    *_keys(
        "date",
        "invoice date | Inv. date | When was it invoiced?; When was the invoice made?",
        "due date | Due by; Date due; Due | When is it due?; When is payment due?; When do I have to pay?",
        "order date | Date ordered | When was it ordered?",
        "delivery date | Deliv. date; Delivered | When is it delivered?; When does it arrive?",
        "birth date | Date of birth; DOB | When was the patient born?; date of birth",
        "expiry date | Expires; Exp. date | When does it expire?",
        "issue date | Issued; Date issued | When was it issued?",
        "visit date | Visit | When was the visit?",
        "start date | Starts | When does it start?",
        "end date | Ends | When does it end?",
    ),
    *_keys(
        "time",
        "arrival || When is the arrival?; arrival time",
        "departure || When is the departure?; departure time",
        "boarding || When is boarding?; boarding time",
        "opening || When is the opening?; opening time",
        "closing || When is the closing?; closing time",
    ),
    *_keys(
        "integer",
        "quantity | Qty; Qty. | How many are there?",
        "guests | No. of guests | How many guests are there?",
        "nights || How many nights?",
        "room | Room no; Room no. | Which room is it?",
        "floor",
        "mileage",
        "pulse",
        "pages | No. of pages | How many pages are there?",
        "copies || How many copies?",
        "seats || How many seats are there?",
    ),
    *_keys("percent", "tax rate", "interest rate | Interest", "humidity", "grade", "commission"),
    *_keys("weight", "weight | Wt. | How heavy is it?"),
    *_keys("height", "height || How tall is it?; How high is it?"),
    *_keys("distance", "distance || How far is it?"),
    *_keys("temperature", "temperature | Temp.; Temp | How warm is it?"),
    *_keys("volume", "volume | Vol. | How much does it hold?"),
    *_keys("pressure", "blood pressure | Blood press."),
    *_keys("phone", "phone | Tel.; Tel; Phone no | What number do I call?", "fax", "mobile | Cell"),
    *_keys(
        "name",
        "customer || Who is the customer?",
        "doctor | Dr. | Who is the doctor?",
        "cashier || Who is the cashier?",
        "driver || Who is the driver?",
        "manager || Who is the manager?",
        "student || Who is the student?",
        "teacher || Who is the teacher?",
        "seller | Sold by | Who is the seller?; Who sold it?",
        "owner || Who is the owner?",
        "city || Which city is it?",
        "street || Which street is it?",
        "company || Which company is it?",
    ),
)

# The wordings of a value type; {k} stands for the key.
ASKS: dict[str, tuple[str, ...]] = {
    "": (
        "What is the {k}?",
        "What is the {k}?",
        "{k}",
        "{k}",
        "{k}?",
        "Give me the {k}.",
        "Read the {k}.",
        "Tell me the {k}.",
        "Find the {k}.",
        "What does it say for {k}?",
        "Which {k} is on this page?",
        "What {k} is given?",
        "Please read the {k}.",
    ),
    "money": ("How much is the {k}?", "How much is the {k}?", "{k} amount", "What is the {k} amount?"),
    "code": ("Which {k} is it?",),
    "date": ("When is the {k}?", "On which day is the {k}?"),
    "time": ("When is {k}?", "At what time is {k}?"),
    "integer": ("How many {k}?",),
    "percent": ("How high is the {k}?",),
    "name": ("Who is the {k}?", "name of the {k}", "What is the name of the {k}?"),
    "phone": ("Which {k} number is given?", "{k} number"),
}
NOT_ASKED = {
    ("integer", "How many {k}?"): {"room", "floor", "mileage", "pulse", "quantity"},
    ("name", "Who is the {k}?"): {"city", "street", "company"},
    ("money", "{k} amount"): {"amount due", "amount paid"},
    ("money", "What is the {k} amount?"): {"amount due", "amount paid"},
}
ITEM_ASKS = (
    "How much is the {k}?",
    "How much does the {k} cost?",
    "What is the price of {k}?",
    "{k} price",
    "price of {k}",
    "{k}",
    "{k}?",
    "What does the {k} cost?",
    "Read the price of {k}.",
)

ITEMS: dict[str, tuple[str, ...]] = {
    "food": _list(
        "apple bread rice milk cheese butter sugar salt coffee tea honey pasta onion garlic lemon orange banana tomato "
        "potato carrot pepper mushroom chicken fish"
    ),
    "tools": _list("hammer nail screw drill saw ladder paint brush rope wire glue lamp shovel bucket"),
    "animals": _list("horse cow sheep goat dog cat rabbit duck eagle wolf bear tiger"),
    "people": _list("anna ben clara david emma frank grace henry irene jack kate liam mary noah olga peter"),
}
COLUMNS: dict[str, dict[str, str]] = {
    "food": {
        "price": "money",
        "stock": "integer",
        "units": "integer",
        "weight": "weight",
        "code": "code",
        "calories": "integer",
        "fat": "decimal",
        "protein": "decimal",
        "sales": "integer",
        "discount": "percent",
        "cost": "money",
    },
    "tools": {
        "price": "money",
        "stock": "integer",
        "units": "integer",
        "weight": "weight",
        "code": "code",
        "length": "length",
        "sales": "integer",
        "shelf": "code",
        "cost": "money",
        "margin": "percent",
    },
    "animals": {
        "weight": "weight",
        "height": "height",
        "speed": "decimal",
        "age": "decimal",
        "count": "integer",
        "cage": "code",
        "code": "code",
        "visits": "integer",
    },
    "people": {
        "age": "decimal",
        "score": "number",
        "points": "integer",
        "hours": "decimal",
        "salary": "money",
        "height": "height",
        "room": "code",
        "phone": "phone",
        "grade": "percent",
        "bonus": "money",
        "team": "name",
        "visits": "integer",
    },
}
COUNTED = ("units", "calories", "points", "hours", "visits", "sales")
TABLE_ASKS = (
    "What is the {c} of {r}?",
    "What is the {c} of {r}?",
    "{r} {c}",
    "{c} {r}",
    "{c} of {r}",
    "{c} for {r}",
    "What is the {c} for {r}?",
    "Read the {c} of {r}.",
    "Give me the {c} of {r}.",
    "What {c} does {r} have?",
    "In the table, what is the {c} of {r}?",
)
COUNTED_ASKS = ("How many {c} of {r}?", "How many {c} for {r}?", "How many {c} does {r} have?")
PRICE_ASKS = ("How much does the {r} cost?", "How much is the {r}?")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "blue": (52, 92, 214),
    "green": (46, 160, 67),
    "yellow": (245, 212, 66),
    "orange": (240, 138, 36),
    "purple": (136, 66, 178),
    "brown": (130, 84, 50),
    "grey": (150, 150, 156),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "hexagon", "oval", "cross")
SCENE_ASKS = (
    "What is written on the {c} {s}?",
    "What is written on the {c} {s}?",
    "label of the {c} {s}",
    "{c} {s}",
    "{c} {s}?",
    "What does the {c} {s} say?",
    "Read the {c} {s}.",
    "Which label does the {c} {s} have?",
    "What is the label of the {c} {s}?",
    "text on the {c} {s}",
)

PLACES = _list(
    "arden belmont corvale dunmore elston farley glenrock hartwell inverley juniper kelby lorimer marston norwick "
    "oakham pelham quarry redhill selby thornton ulster vernon westbay yarrow zennor ashby brecon camber dorset everly"
)
MAP_ASKS = (
    "What is the population of {p}?",
    "What is the population of {p}?",
    "population of {p}",
    "{p} population",
    "{p}",
    "How many people live in {p}?",
    "What number is written at {p}?",
    "Read the number of {p}.",
)

CATEGORIES: dict[str, tuple[str, ...]] = {
    "months": _list("january february march april may june july august september october november december"),
    "days": _list("monday tuesday wednesday thursday friday saturday sunday"),
    "regions": _list("north south east west central coast"),
    "goods": ITEMS["food"][:12],
}
CHART_ASKS = (
    "What is the value for {k}?",
    "What is the value for {k}?",
    "value of {k}",
    "{k}",
    "{k} value",
    "How much is {k}?",
    "What does the chart show for {k}?",
    "Read the value of {k}.",
    "How high is {k}?",
)
HIGHEST_ASKS = ("Which is the highest?", "Which one has the highest value?", "highest value")
LOWEST_ASKS = ("Which is the lowest?", "Which one has the lowest value?", "lowest value")

VERTICES = "ABCDEFGHKLMN"
SIDE_ASKS = (
    "What is the length of {k}?",
    "What is the length of {k}?",
    "How long is {k}?",
    "length of {k}",
    "length of side {k}",
    "How long is the side {k}?",
    "{k}",
    "Read the length of {k}.",
)

TITLES: dict[str, tuple[str, ...]] = {
    "form": ("REGISTRATION", "Record", "Application", "Certificate", "Statement", "Details", "Report"),
    "invoice": ("INVOICE", "Invoice", "BILL", "Statement"),
    "receipt": ("RECEIPT", "Receipt", "Thank you", "WELCOME"),
    "table": ("Overview", "List", "Summary", "Inventory", "Results"),
    "chart": ("Figure", "Overview", "Trend", "Results"),
    "scene": ("Shapes", "Figure", "Plate"),
    "map": ("MAP", "Region", "District"),
    "geometry": ("Exercise", "Figure", "Problem"),
}
STAMPS = ("PAID", "APPROVED", "VOID", "DRAFT", "URGENT", "RECEIVED", "CHECKED")
# Words of paragraphs that no question asks about. None of them is a vocabulary word.
FILLER = _list(
    "goods remain our property until settled in full please keep this copy with your records all claims must reach us "
    "within ten working weeks subject to terms overleaf we thank you kindly handle with care see note below printed by "
    "machine without signature valid only with stamp not transferable"
)
# Questions about things that are on no page. Their nouns are not in `words()`, so a model gets them letter by letter.
OUTSIDE_ASKS = (
    "Where is the {t}?",
    "What colour is the {t}?",
    "How many {t}s are there?",
    "Is there a {t}?",
    "What is the {t}?",
    "What is the {t} doing?",
    "Describe the {t}",
    "Tell me about the {t}",
    "Who owns the {t}?",
    "Why is there a {t}?",
    "Do you see a {t}?",
    "{t}",
    "name of the {t}",
    "read the {t}",
)
OUTSIDE = _list(
    "airplane balloon banjo beard bicycle boat bottle bridge bus candle captain castle ceiling chair church cloud "
    "coat crown dancer desert dragon dress drum elephant engine fence finger fire flag forest garage garden ghost "
    "giraffe glove guitar hat helmet island jacket juggler king kitchen knife ladybug lake lawyer lighthouse lion "
    "moon mountain mouse mouth nurse ocean painting parrot penguin piano pillow planet poem queen rainbow river "
    "robot rocket roof sandwich shadow shoe singer sky snow sofa spider sun tower tractor train tree tunnel "
    "umbrella violin volcano weather window wizard zebra"
)
OUTSIDE_HELDOUT = _list(
    "astronaut beach camel camera clown curtain dolphin feather fountain kangaroo magician mirror monkey "
    "motorcycle pirate sailor skateboard snake statue sunset surfer swan truck unicorn whale"
)
PRINTED_CHARACTERS = string.ascii_letters + string.digits + " .,:-/%$#()&'+"

_WORD = re.compile(r"[a-z]+")


def kinds() -> tuple[str, ...]:
    """Return the kinds of page that can be drawn."""
    return ("form", "invoice", "receipt", "table", "chart", "scene", "map", "geometry", "specimen")


@lru_cache(maxsize=1)
def _words() -> tuple[str, ...]:
    texts = [ABSENT]
    for key in KEYS:
        texts += [key.phrase, *key.asks]
    for asks in (*ASKS.values(), ITEM_ASKS, TABLE_ASKS, COUNTED_ASKS, PRICE_ASKS, SCENE_ASKS, MAP_ASKS, CHART_ASKS):
        texts += [re.sub(r"{.}", " ", ask) for ask in asks]
    texts += [re.sub(r"{.}", " ", ask) for ask in (*SIDE_ASKS, *HIGHEST_ASKS, *LOWEST_ASKS)]
    texts += [word for group in (*ITEMS.values(), *COLUMNS.values(), *CATEGORIES.values()) for word in group]
    texts += [*COLOURS, *SHAPES, *PLACES]
    return tuple(sorted({word for text in texts for word in _WORD.findall(text.lower())}))


def words() -> list[str]:
    """Return every word of questions, keys, headers and labels in lower case, then the capital letters of vertices."""
    return [*_words(), *VERTICES]


def characters() -> str:
    """Return every character that may be printed, asked or answered: at most 79, so that they are 80 with the blank."""
    return PRINTED_CHARACTERS + "?"


def is_heldout_pairing(row: str, column: str) -> bool:
    """Return whether training never asks for this row and column together: one pairing in eight."""
    return (sum(map(ord, row)) * 31 + sum(map(ord, column))) % 8 == 0
