"""The text of a growing answer: pieces as soon as they are final, cut at stop texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextOutput:
    """Turns tokens into text, one at a time.

    Blanks around the answer are dropped. Text is held back while it may turn out to be one of these blanks, the
    beginning of a stop text or of a character of several tokens.

    Args:
        tokenizer: The tokenizer.
        stops: Texts that end the answer. They are not part of it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer, self._stops = tokenizer, stops
        self._ids: list[int] = []
        # Tokens up to `_start` are text already. Those up to `_read` are decoded once more with every new token,
        # since the text of a token may depend on the one before it.
        self._start = self._read = 0
        self._held = ""
        self._is_empty = True

    def push(self, token: int) -> str:
        """Take a token, and return the text that has become final."""
        self._ids.append(token)
        before, after = self._decode(self._start, self._read), self._decode(self._start, len(self._ids))
        if after.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self._ids)
        self._held += after[len(before) :]
        return self._release(final=False)

    def finish(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        before, after = self._decode(self._start, self._read), self._decode(self._start, len(self._ids))
        if not self.stopped:
            self._held += after[len(before) :]
        return self._release(final=True)

    def _decode(self, first: int, last: int) -> str:
        text: str = self._tokenizer.decode(self._ids[first:last], skip_special_tokens=True)
        return text

    def _release(self, final: bool) -> str:
        if self._is_empty:
            self._held = self._held.lstrip()
        ends = [self._held.find(stop) for stop in self._stops if stop in self._held]
        if ends:
            self.stopped, self._held, final = True, self._held[: min(ends)], True
        keep = len(self._held)
        if not final:
            keep -= max((_overlap(self._held, stop) for stop in self._stops), default=0)
        keep = len(self._held[:keep].rstrip())
        piece, self._held = self._held[:keep], "" if final else self._held[keep:]
        self._is_empty = self._is_empty and not piece
        return piece


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop text."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
