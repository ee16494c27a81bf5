"""Random printed values by type, split by a hash of the string, so that no held-out value is drawn for training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from slime_vlm.errors import ConfigError

SPLITS = ("train", "heldout", "heldout_fonts")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_ALPHANUMERIC = "ABCDEFGHJKLMNPRSTUVWXYZ23456789"
_ONSETS = (
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "qu",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "y")
_CODAS = ("", "", "l", "n", "r", "s", "m", "x", "ck", "nd", "th", "t")
_SHARE = 8  # one string in this many is held out


def is_heldout(text: str) -> bool:
    """Return whether a value belongs to the held-out split: one string in eight, by a hash that never changes."""
    return zlib.crc32(text.encode()) % _SHARE == 0


def _digits(rng: random.Random, count: int) -> str:
    return str(rng.randrange(10 ** (count - 1), 10**count)) if count > 1 else str(rng.randrange(1, 10))


def _money(rng: random.Random) -> str:
    amount = _digits(rng, rng.choice((1, 2, 2, 3, 3, 4)))
    if len(amount) == 4 and rng.random() < 0.5:
        amount = amount[0] + "," + amount[1:]
    amount += f".{rng.randrange(100):02d}"
    return "$" + amount if rng.random() < 0.35 else amount


def _integer(rng: random.Random) -> str:
    return _digits(rng, rng.choice((2, 2, 3, 3, 4)))


def _population(rng: random.Random) -> str:
    digits = _digits(rng, rng.choice((3, 4, 4, 5)))
    return digits if len(digits) < 4 or rng.random() < 0.5 else digits[:-3] + "," + digits[-3:]


def _code(rng: random.Random) -> str:
    form = rng.randrange(6)
    if form == 0:
        return rng.choice(_LETTERS) + rng.choice(_LETTERS) + "-" + _digits(rng, rng.choice((3, 4)))
    if form == 1:
        return _digits(rng, rng.choice((4, 5, 6, 7)))
    if form == 2:
        return "".join(rng.choice(_ALPHANUMERIC) for _ in range(rng.choice((4, 5, 6, 7, 8))))
    if form == 3:
        return f"{rng.randrange(100):02d}/{_digits(rng, 4)}"
    if form == 4:
        return rng.choice(_LETTERS) + _digits(rng, rng.choice((3, 4, 5)))
    return f"{_digits(rng, 3)}-{rng.choice(_LETTERS)}{rng.choice(_LETTERS)}{rng.randrange(10)}"


def _date(rng: random.Random) -> str:
    year, month, day = rng.randrange(1990, 2032), rng.randrange(1, 13), rng.randrange(1, 29)
    form = rng.randrange(5)
    if form == 0:
        return f"{year}-{month:02d}-{day:02d}"
    if form == 1:
        return f"{day:02d}/{month:02d}/{year % 100:02d}"
    if form == 2:
        return f"{day:02d}.{month:02d}.{year}"
    if form == 3:
        return f"{day} {_MONTHS[month - 1]} {year % 100:02d}"
    return f"{_MONTHS[month - 1]} {day}, {year % 100:02d}"


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def _percent(rng: random.Random) -> str:
    return f"{rng.randrange(1, 100)}.{rng.randrange(10)}%" if rng.random() < 0.7 else f"{rng.randrange(2, 100)}%"


def _phone(rng: random.Random) -> str:
    form = rng.randrange(3)
    if form == 0:
        return f"{_digits(rng, 3)}-{rng.randrange(10000):04d}"
    if form == 1:
        return f"{_digits(rng, 3)} {rng.randrange(1000):03d}"
    return f"0{_digits(rng, 2)}-{_digits(rng, 5)}"


def _name(rng: random.Random) -> str:
    """Return a capitalised name of random syllables with 3 to 9 letters."""
    while True:
        syllables = rng.choice((2, 2, 2, 3))
        name = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
        if 3 <= len(name) <= 9:
            return name.capitalize()


def _decimal(rng: random.Random) -> str:
    return f"{_digits(rng, rng.choice((1, 2, 3)))}.{rng.randrange(10)}"


def _with_unit(*units: str) -> Callable[[random.Random], str]:
    def draw(rng: random.Random) -> str:
        number = _decimal(rng) if rng.random() < 0.7 else _digits(rng, rng.choice((2, 3)))
        return f"{number} {rng.choice(units)}"

    return draw


def _pressure(rng: random.Random) -> str:
    return f"{rng.randrange(90, 180)}/{rng.randrange(50, 110)}"


def _number(rng: random.Random) -> str:
    return _decimal(rng) if rng.random() < 0.4 else _integer(rng)


_DRAW: dict[str, Callable[[random.Random], str]] = {
    "money": _money,
    "integer": _integer,
    "population": _population,
    "code": _code,
    "date": _date,
    "time": _time,
    "percent": _percent,
    "phone": _phone,
    "name": _name,
    "number": _number,
    "decimal": _decimal,
    "weight": _with_unit("kg", "g", "lb"),
    "height": _with_unit("cm", "m"),
    "distance": _with_unit("km", "m", "mi"),
    "temperature": _with_unit("C", "F"),
    "volume": _with_unit("l", "ml"),
    "length": _with_unit("cm", "cm", "m", "mm"),
    "pressure": _pressure,
}


_SHORTEST = {"date": 8, "time": 5, "phone": 7, "pressure": 5}


def shortest_value(value_type: str) -> int:
    """Return the least length at which values of a type are not rare."""
    return _SHORTEST.get(value_type, 4)


def draw_value(rng: random.Random, value_type: str, split: str, *, max_length: int = 10) -> str:
    """Draw a value of a type for a split.

    Args:
        rng: Source of randomness.
        value_type: "money", "date", "code", ….
        split: "train" draws values that are not held out, the other splits only held-out values.
        max_length: Most characters of the value.

    Raises:
        ConfigError: No value of the type is that short.
    """
    draw, wanted = _DRAW[value_type], split != "train"
    for _ in range(1000):
        text = draw(rng)
        if is_heldout(text) == wanted and 2 <= len(text) <= max_length:
            return text
    raise ConfigError(f"no {value_type} of at most {max_length} characters found: make the page or its text larger")


def draw_number(rng: random.Random, digits: int, decimals: int, split: str) -> str:
    """Draw a number of a given magnitude for a split, "348" or "348.2"."""
    while True:
        text = _digits(rng, digits) + (f".{rng.randrange(10**decimals)}" if decimals else "")
        if is_heldout(text) == (split != "train"):
            return text
