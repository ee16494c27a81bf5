"""Streams pages of typeset PDFs: one seed, one page, at a resolution that gives a wanted x-height."""

from __future__ import annotations

import atexit
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

from slime_vlm.errors import ConfigError
from slime_vlm.extras import import_extra
from slime_vlm.pages.debian_packages import ListedPackage, read_manifest, read_package_list
from slime_vlm.pages.pdf_pages import PdfText, open_pdf, read_pdf_page, render_pdf_page
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.splits import SPLITS
from slime_vlm.pages.typeset.statements import typeset_questions
from slime_vlm.pages.word_lists import Words, read_words

PACKAGES = Path(__file__).with_name("packages.tsv")

_TRIES = 40
_OPEN = 24  # PDFs kept open
_FEWEST = 60  # characters of a page worth showing
_FOREIGN = 0.05  # largest share of characters beyond Latin-1


def _close_all(documents: OrderedDict[str, Any]) -> None:
    for document in documents.values():
        if document is not None:
            document.close()
    documents.clear()


class TypesetPages:
    """Pages of the PDFs in a cache folder, by seed."""

    def __init__(
        self,
        cache: Path | str,
        split: str = "train",
        *,
        x_height: tuple[float, float] = (9.0, 14.0),
        questions: int = 8,
        absent: float = 0.15,
        max_side: int = 3600,
        words: Path | None = None,
        packages: list[ListedPackage] | None = None,
    ) -> None:
        """List the PDFs of a split.

        Args:
            cache: Folder that `scripts/fetch_typeset_pdfs.py` filled.
            split: "train" or "heldout", by publisher.
            x_height: Smallest and largest x-height in pixels; a page's is drawn between them.
            questions: Most questions a page.
            absent: Share of questions about what is not on the page.
            max_side: Longest side in pixels; larger pages are left out.
            words: Word list for questions about absent things, made-up words without it.
            packages: The list of packages, by default the one that comes with the code.

        Raises:
            ConfigError: An unknown split, or a cache folder without PDFs of it.
        """
        if split not in SPLITS:
            raise ConfigError(f"pages: unknown split {split!r}, expected one of {', '.join(SPLITS)}")
        self.cache, self.split = Path(cache), split
        self.x_height, self.questions, self.absent, self.max_side = x_height, questions, absent, max_side
        self.words = Words(read_words(words), split)
        listed = read_package_list(PACKAGES) if packages is None else packages
        names = {package.name for package in listed if package.split == split}
        self.paths = [
            file.path for file in read_manifest(self.cache) if file.package in names and file.path.endswith(".pdf")
        ]
        if not self.paths:
            raise ConfigError(
                f"{self.cache}: no PDFs of the split {split!r}; run scripts/fetch_typeset_pdfs.py {cache}"
            )
        # The square root of the size: a book of 600 pages is drawn more often than a leaflet, but not 200 times.
        self.weights = [(self.cache / path).stat().st_size ** 0.5 for path in self.paths]
        import_extra("pypdfium2", str(cache), "a folder of PDF files", "pdf")
        self._open: OrderedDict[str, Any] = OrderedDict()
        # pypdfium2 complains at exit about documents that nobody closed.
        atexit.register(_close_all, self._open)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open documents, so that data loaders can send the source to their workers."""
        return {**self.__dict__, "_open": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without open documents."""
        self.__dict__.update(state)
        self._open = OrderedDict()
        atexit.register(_close_all, self._open)

    def _document(self, path: str) -> Any | None:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        try:
            document = open_pdf(str(self.cache / path))
        except Exception:  # pypdfium2 raises its own error for a damaged or protected file
            document = None
        self._open[path] = document
        if len(self._open) > _OPEN:
            _, oldest = self._open.popitem(last=False)
            if oldest is not None:
                oldest.close()
        return document

    def page(self, seed: int) -> ReadablePage:
        """Draw the page of a seed.

        Raises:
            ConfigError: No page of the PDFs can be shown at the wanted x-height.
        """
        rng = random.Random(seed)
        for _ in range(_TRIES):
            path = rng.choices(self.paths, self.weights)[0]
            wanted = rng.uniform(*self.x_height)
            document = self._document(path)
            if document is None or not len(document):
                continue
            number = rng.randrange(len(document))
            pdf_page = document[number]
            if pdf_page.get_rotation():
                continue
            text = read_pdf_page(pdf_page)
            if not self._worth_showing(text, wanted):
                continue
            scale = wanted / text.x_height
            page = ReadablePage(
                image=render_pdf_page(pdf_page, scale),
                characters=text.characters,
                boxes=text.boxes * scale,
                lines=text.lines,
                questions=[],
                source="typeset",
                template=f"{path}#{number + 1}",
                split=self.split,
                seed=seed,
                x_height=wanted,
            )
            pdf_page.close()
            page.questions = typeset_questions(
                rng, page, count=self.questions, absent=self.absent, words=self.words.words
            )
            return page
        raise ConfigError(
            f"{self.cache}: none of {_TRIES} pages can be shown with an x-height of {self.x_height} pixels within "
            f"{self.max_side} pixels; allow a larger side or smaller text"
        )

    def _worth_showing(self, text: PdfText, wanted: float) -> bool:
        if len(text.characters) < _FEWEST or text.x_height <= 0.5:
            return False
        if max(text.width, text.height) * wanted / text.x_height > self.max_side:
            return False
        return sum(ord(c) > 255 for c in text.characters) <= _FOREIGN * len(text.characters)
