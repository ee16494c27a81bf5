"""Translate the generation settings of a harness into arguments of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The default of the other models in lmms-eval.
_MAX_NEW_TOKENS = 1024
_SAMPLING = ("temperature", "top_p", "top_k")
_SEARCH = ("num_beams", "repetition_penalty")
_STOPPING = ("max_new_tokens", "until", "do_sample")


@dataclass(frozen=True)
class Generation:
    """How to generate answers.

    Attributes:
        max_new_tokens: Maximum length of an answer, in tokens.
        stops: Texts before which an answer is cut off.
        options: Arguments of `generate` about sampling and search.
        ignored: Names of settings that have no meaning here.
    """

    max_new_tokens: int
    stops: tuple[str, ...]
    options: dict[str, Any]
    ignored: tuple[str, ...]

    def cut(self, text: str) -> str:
        """Return the answer up to the first stop."""
        for stop in self.stops:
            text = text.partition(stop)[0]
        return text.strip()


def read_generation(given: Mapping[str, Any]) -> Generation:
    """Parse the generation settings of a request.

    Args:
        given: Settings as tasks of lmms-eval write them. A temperature of zero, or none, means greedy decoding,
            whatever `do_sample` says.
    """
    until = given.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(given.get("temperature") or 0)
    options = {name: given[name] for name in _SEARCH if given.get(name) is not None}
    if temperature > 0 and given.get("do_sample") is not False:
        # Tasks write zero or None when top-p and top-k are off.
        options |= {"do_sample": True, **{name: given[name] for name in _SAMPLING if given.get(name)}}
    return Generation(
        max_new_tokens=int(given.get("max_new_tokens") or _MAX_NEW_TOKENS),
        stops=tuple(stop for stop in stops if stop),
        options=options,
        ignored=tuple(sorted(set(given) - {*_SAMPLING, *_SEARCH, *_STOPPING})),
    )
