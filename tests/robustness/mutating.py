"""Damage bytes and JSON values, the same way for the same seed."""

from __future__ import annotations

import copy
import random
from typing import Any

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 14_000, 65_500)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    3,
    10**9,
    10**18,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "../../etc/passwd",
    "\ud800",
    [],
    [[[]]],
    [10**9] * 4,
    {},
    {"a": {"b": []}},
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return damaged bytes: one to six changes, most of them near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        if not data:
            break
        within = min(len(data), 256) if chance.random() < 0.6 else len(data)
        place = chance.randrange(within)
        kind = chance.randrange(7)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_EXTREMES) & (256**size - 1)
            data[place : place + size] = value.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 2:
            data[place : place + chance.randint(1, 64)] = chance.randbytes(chance.randint(1, 64))
        elif kind == 3:
            del data[place : place + chance.randint(1, 200)]
        elif kind == 4:
            data[place:place] = data[place : place + chance.randint(1, 400)] * chance.choice((1, 2, 50))
        elif kind == 5:
            other = chance.randrange(len(data))
            size = chance.randint(1, 32)
            data[place : place + size] = data[other : other + size]
        else:
            del data[chance.randrange(len(data)) :]
    return bytes(data)


def mutated_json(value: Any, chance: random.Random) -> Any:
    """Return a copy of a JSON value in which one or two fields have another value, are gone or are new."""
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 2)):
        places = list(_places(value))
        if not places:
            return chance.choice(ODD_VALUES)
        holder, key = chance.choice(places)
        if chance.random() < 0.15:
            del holder[key]
        else:
            holder[key] = chance.choice(ODD_VALUES)
    return value


def _places(value: Any) -> Any:
    """Yield every (holder, key) in nested dictionaries and lists, up to 2,000."""
    waiting = [value]
    count = 0
    while waiting and count < 2000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            count += 1
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
