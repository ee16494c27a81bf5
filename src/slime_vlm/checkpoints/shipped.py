"""Checkpoints that come with the package. No import of a library: the command line needs their names at once."""

from pathlib import Path

SHIPPED = {name: Path(__file__).parent / name for name in ("nano", "pages")}
"""Their folders by name."""

DEFAULT_MODEL = "pages"
"""The one that answers if nobody names a model: what people try first is a document of their own."""
