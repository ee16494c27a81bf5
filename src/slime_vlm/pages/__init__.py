"""Seeded pages with exact questions and answers, for training and testing the small model.

`make_page` lays out a page from a seed without drawing it, `render` draws it, and `write_pages` writes pages to a
folder.
"""

from __future__ import annotations

from slime_vlm.pages.making import make_page
from slime_vlm.pages.page import ABSENT, Page, Question, Run
from slime_vlm.pages.render import render
from slime_vlm.pages.settings import PageSettings
from slime_vlm.pages.values import is_heldout
from slime_vlm.pages.vocabulary import characters, kinds, words
from slime_vlm.pages.writing import write_pages

__all__ = [
    "ABSENT",
    "Page",
    "PageSettings",
    "Question",
    "Run",
    "characters",
    "is_heldout",
    "kinds",
    "make_page",
    "render",
    "words",
    "write_pages",
]
