"""How a harness wants answers made, in the words of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# As long as the other models of lmms-eval answer when a task does not say.
_MAX_NEW_TOKENS = 1024
_SAMPLING = ("temperature", "top_p", "top_k")
_SEARCH = ("num_beams", "repetition_penalty")
_STOPPING = ("max_new_tokens", "until", "do_sample")


@dataclass(frozen=True)
class Generation:
    """How answers are made.

    Attributes:
        max_new_tokens: longest answer.
        stops: an answer ends before the first of these texts.
        options: what `generate` is told about choosing tokens.
        ignored: names of settings that mean nothing here.
    """

    max_new_tokens: int
    stops: tuple[str, ...]
    options: dict[str, Any]
    ignored: tuple[str, ...]

    def cut(self, text: str) -> str:
        """The answer up to the first stop."""
        for stop in self.stops:
            text = text.partition(stop)[0]
        return text.strip()


def read_generation(given: Mapping[str, Any]) -> Generation:
    """Read the generation settings of a request.

    Args:
        given: settings as tasks of lmms-eval write them. A temperature of zero, or none, is greedy, whatever
            `do_sample` says.
    """
    until = given.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    wanted = float(given.get("temperature") or 0)
    options = {name: given[name] for name in _SEARCH if given.get(name) is not None}
    if wanted > 0 and given.get("do_sample") is not False:
        # Zero and None are how tasks write that top-p and top-k are off.
        options |= {"do_sample": True, **{name: given[name] for name in _SAMPLING if given.get(name)}}
    return Generation(
        max_new_tokens=int(given.get("max_new_tokens") or _MAX_NEW_TOKENS),
        stops=tuple(stop for stop in stops if stop),
        options=options,
        ignored=tuple(sorted(set(given) - {*_SAMPLING, *_SEARCH, *_STOPPING})),
    )
