"""Ask a language model behind an OpenAI-compatible address to grade answers."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from slime_vlm.errors import ConfigError, one_line

_TRIES = 4
_SECONDS = 120.0
MOST_BYTES = 1_000_000
"""The largest reply of a judge."""
_WORTH_ANOTHER_TRY = {408, 409, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Judge:
    """A language model that grades answers.

    Attributes:
        url: Base address, such as `https://host/v1`. `/chat/completions` is appended.
        model: Name of the model there.
        key: API key, sent as a bearer token. It is never written to a file.
        pause: Seconds before the second try, doubled for each further one.
    """

    url: str
    model: str
    key: str | None = None
    pause: float = 2.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"--judge-url is '{self.url}', expected an address such as https://host/v1")
        if not self.model:
            raise ConfigError("--judge-url is given without --judge-model; name the model that grades")

    def ask(self, prompt: str, temperature: float = 0.0) -> str:
        """Return the judge's reply to a prompt, by default decoded greedily.

        Raises:
            ConfigError: The judge cannot be reached, refuses, or sends something other than a chat completion.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": temperature}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310  (the address of the judge is the user's own)
        reply = self._send(request)
        try:
            return str(json.loads(reply)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError):
            raise ConfigError(f"judge {address}: {reply[:80]!r} is not a chat completion; check --judge-url") from None

    def _send(self, request: urllib.request.Request) -> bytes:
        for attempt in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310  (the address of the judge is the user's own)
                    content: bytes = answer.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise ConfigError(
                        f"judge {request.full_url}: the reply has more than {MOST_BYTES:,} bytes, expected a short "
                        "text; check --judge-url"
                    )
                # Unlike a read of everything, a bounded one does not complain about a reply that breaks off.
                if answer.length:
                    raise http.client.IncompleteRead(content, answer.length)
                return content
            except urllib.error.HTTPError as error:
                final = error.code not in _WORTH_ANOTHER_TRY or attempt == _TRIES - 1
                if final:
                    raise ConfigError(f"judge {request.full_url}: {error.code} {error.reason}") from None
            except (OSError, http.client.HTTPException) as error:
                if attempt == _TRIES - 1:
                    raise ConfigError(f"judge {request.full_url}: {one_line(error)}; check --judge-url") from None
            time.sleep(self.pause * 2**attempt)
        raise AssertionError("unreachable")
