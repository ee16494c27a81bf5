"""Errors of the package. Each message says in one line what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class SlimeError(Exception):
    """Base class of every error that the package raises on purpose."""


class ConfigError(SlimeError, ValueError):
    """A setting of a model, a recipe or a run has a value that cannot be used."""


class DataError(SlimeError):
    """A training or evaluation record cannot be used."""


class CheckpointError(SlimeError):
    """A checkpoint is missing, damaged or in an unknown layout."""


class MediaError(SlimeError, ValueError):
    """An image, document, video or address cannot be found, opened, decoded or written.

    Also raised when the optional package that reads a format is not installed.
    """


class InputError(SlimeError, ValueError):
    """Arguments or tensors do not fit together, the model or the processor: a question, a size, a shape, a count."""


def one_line(error: BaseException) -> str:
    """Return the message of another library's error, shortened to one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def printable(text: str) -> str:
    """Write control characters as escapes, so that a file name or an answer cannot command a terminal.

    Line ends and tabs stay. Halves of a character, which stand for bytes of a file name that are not UTF-8, are
    escaped, too: they cannot be printed.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return advice about an unknown name: the valid one that looks like it or contains it, else all of them.

    A suggestion that does not look like the name would send the reader the wrong way.
    """
    known = list(valid)
    close = difflib.get_close_matches(name, known, n=1) or [other for other in known if len(name) > 2 and name in other]
    return f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(known)}"
