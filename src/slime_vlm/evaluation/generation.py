"""Settings of generation: those that `--gen NAME=VALUE` changes, and how long an answer may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from slime_vlm.errors import ConfigError, nearest
from slime_vlm.model.configuration_slime import SlimeConfig

SHORT_ANSWER = 24
"""Tokens of an answer to a question about a page, at most, see `longest_answer`."""

_CHARACTERS_OF_A_TOKEN = 5
"""Characters of a token of a usual vocabulary, rounded up."""

# Lowest value of each setting. Those with a whole lowest value are whole numbers.
_LOWEST: dict[str, int | float] = {
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "num_beams": 1,
    "top_k": 0,
    "no_repeat_ngram_size": 0,
    "temperature": 0.0,
    "top_p": 0.0,
    "repetition_penalty": 0.0,
    "length_penalty": -100.0,
}
_HIGHEST = {"top_p": 1.0}


def parse_generation(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `generate` that assignments such as `temperature=0.2` name.

    A temperature above 0 samples. A temperature of 0 is greedy, which is the default.

    Raises:
        ConfigError: A name is unknown or occurs twice, or a value is no number of the right kind.
    """
    settings: dict[str, Any] = {}
    for text in assignments:
        name, _, value = text.partition("=")
        if name not in _LOWEST:
            raise ConfigError(f"--gen {text}: '{name}' is not a setting; {nearest(name, _LOWEST)}")
        if name in settings:
            raise ConfigError(f"--gen {text}: {name} occurs twice; name it once")
        settings[name] = _number(text, name, value)
    temperature = settings.pop("temperature", 0.0)
    if temperature > 0:
        return {**settings, "do_sample": True, "temperature": float(temperature)}
    unused = sorted(settings.keys() & {"top_p", "top_k"})
    if unused:
        raise ConfigError(f"--gen {unused[0]}=…: greedy decoding has no {unused[0]}; add --gen temperature=0.7")
    return settings


def _number(text: str, name: str, value: str) -> int | float:
    lowest, highest = _LOWEST[name], _HIGHEST.get(name)
    kind = "a whole number" if isinstance(lowest, int) else "a number"
    try:
        number = json.loads(value)
    except ValueError:
        number = None
    whole = isinstance(number, int) and not isinstance(number, bool)
    fits = whole if isinstance(lowest, int) else whole or isinstance(number, float)
    if not fits or not lowest <= number <= (highest if highest is not None else float("inf")):
        limit = f" of at least {lowest}" + (f" and at most {highest}" if highest is not None else "")
        raise ConfigError(f"--gen {text}: expected {kind}{limit}")
    return int(number) if whole else float(number)


def longest_answer(config: SlimeConfig, tokens: int) -> int:
    """Return how many tokens of a model are as long as so many of a usual vocabulary.

    A model with `characters` writes one character a token. What a benchmark allows would cut its answers off.
    """
    return tokens * (1 if config.characters is None else _CHARACTERS_OF_A_TOKEN)
