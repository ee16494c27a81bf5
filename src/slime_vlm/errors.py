"""Errors of the package: every message says what was found, what was expected and what to do, in one line."""

from __future__ import annotations


class SlimeError(Exception):
    """Base of every error that the package raises on purpose."""


class ConfigError(SlimeError, ValueError):
    """A configuration field has a value that no model can be built from."""


class DataError(SlimeError):
    """A training or evaluation record cannot be used."""


class CheckpointError(SlimeError):
    """A checkpoint is missing, damaged or of another layout."""


class MediaError(SlimeError, ValueError):
    """An image, document, video or address cannot be found, opened, decoded or written.

    Also raised when the optional package that reads a format is not installed.
    """


class InputError(SlimeError, ValueError):
    """Arguments or tensors do not fit together, the model or the processor: a question, a size, a shape, a count."""


def one_line(error: BaseException) -> str:
    """The message of an error of another library, short and in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
