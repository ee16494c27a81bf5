"""Templates of documents, by kind."""

from slime_vlm.pages.browser.templates import billing, letters, mosaics, papers, screens, travel
from slime_vlm.pages.browser.templates.registry import KIND_NAMES, TEMPLATES, Layout, Template, templates_of

__all__ = [
    "KIND_NAMES",
    "TEMPLATES",
    "Layout",
    "Template",
    "billing",
    "letters",
    "mosaics",
    "papers",
    "screens",
    "templates_of",
    "travel",
]
