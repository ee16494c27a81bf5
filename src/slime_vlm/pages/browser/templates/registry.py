"""The list of templates: each writes one kind of document, and is either trained on or held out whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slime_vlm.pages.browser.draft import Draft

A4 = (210.0, 297.0)
A5 = (148.0, 210.0)
LETTER = (215.9, 279.4)
ROLL = (80.0, 400.0)
SLIDE = (254.0, 142.9)
SCREEN = (338.7, 211.7)  # 1280 x 800 CSS pixels
PHONE = (103.2, 223.5)  # 390 x 845 CSS pixels


@dataclass(frozen=True)
class Layout:
    """A document as HTML.

    Attributes:
        html: What stands on the page.
        size: Width and height of the page in millimetres.
        padding: Blank margin in millimetres.
        crop: Whether the page ends below its last line, as a till roll or a label does.
    """

    html: str
    size: tuple[float, float] = A4
    padding: float = 16.0
    crop: bool = False


@dataclass(frozen=True)
class Template:
    """A way to write one kind of document.

    Attributes:
        name: Its name, without the module's.
        kind: The kind of document, one of `KIND_NAMES`, or `NO_KIND`.
        heldout: Whether it is held out.
        write: Writes a draft's document.
    """

    name: str
    kind: str
    heldout: bool
    write: Callable[[Draft], Layout]


TEMPLATES: dict[str, Template] = {}

NO_KIND = ""
"""Kind of a page that is no document of a kind. Nobody is asked for it, and it is drawn if it is named."""

KIND_NAMES = (
    "invoice",
    "receipt",
    "statement",
    "letter",
    "form",
    "data sheet",
    "lab report",
    "table",
    "timetable",
    "menu",
    "ticket",
    "label",
    "slide",
    "settings",
    "web page",
    "dashboard",
    "certificate",
    "notice",
)


def template(kind: str, heldout: bool = False) -> Callable[[Callable[[Draft], Layout]], Callable[[Draft], Layout]]:
    """Register the function below as a template of a kind."""

    def register(write: Callable[[Draft], Layout]) -> Callable[[Draft], Layout]:
        TEMPLATES[write.__name__] = Template(write.__name__, kind, heldout, write)
        return write

    return register


def templates_of(split: str) -> list[Template]:
    """Return the templates of a split."""
    return [one for one in TEMPLATES.values() if one.heldout == (split == "heldout")]
