"""How long the steps of an answer take, and its text as it becomes final."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import TextStreamer

OnText = Callable[[str], object]


class StepClock:
    """Seconds by step. A step begins where the previous one ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, step: str, until: float | None = None) -> None:
        """End a step, now or at a time of `time.perf_counter`."""
        now = time.perf_counter() if until is None else until
        self.seconds[step] = now - self._last
        self._last = now


class TimedIterator:
    """An iterator that adds up the seconds its items take."""

    def __init__(self, items: Iterator[Tensor]) -> None:
        self.seconds = 0.0
        self._items = items

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            start = time.perf_counter()
            item = next(self._items, None)
            self.seconds += time.perf_counter() - start
            if item is None:
                return
            yield item


class TimedStreamer(TextStreamer):
    """Streams text as it becomes final, and records when the first token came, which is the end of the prefill."""

    def __init__(self, tokenizer: Any, on_text: OnText | None) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.first_token: float | None = None
        self._on_text = on_text

    def put(self, value: Tensor) -> None:
        """Take the prompt, then every new token."""
        # The prompt comes first, and the base class skips it.
        if not self.next_tokens_are_prompt and self.first_token is None:
            self.first_token = time.perf_counter()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass a piece of text on."""
        if self._on_text is not None and text:
            self._on_text(text)
