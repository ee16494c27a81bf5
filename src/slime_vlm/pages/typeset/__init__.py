"""Pages of typeset PDFs from Debian's documentation packages, with questions about what is printed on them."""

from slime_vlm.pages.typeset.source import TypesetPages
from slime_vlm.pages.typeset.statements import typeset_questions

__all__ = ["TypesetPages", "typeset_questions"]
