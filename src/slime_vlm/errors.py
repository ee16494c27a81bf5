"""Errors of the package. Each message says in one line what was found, what was expected and what to do."""

from __future__ import annotations


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
