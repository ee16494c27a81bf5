"""Streams documents laid out by a browser: written from a seed, printed in batches, cached, drawn at any size."""

from __future__ import annotations

import atexit
import hashlib
import json
import random
import re
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slime_vlm.errors import ConfigError
from slime_vlm.extras import import_extra
from slime_vlm.pages.browser.asking import Asker, resolve
from slime_vlm.pages.browser.blocks import CSS, extras, footer
from slime_vlm.pages.browser.draft import Draft, Fact
from slime_vlm.pages.browser.fonts import read_families
from slime_vlm.pages.browser.printing import print_pdf
from slime_vlm.pages.browser.templates import TEMPLATES, Layout, templates_of
from slime_vlm.pages.browser.templates.registry import A4, A5, LETTER, NO_KIND, SCREEN, SLIDE
from slime_vlm.pages.browser.theme import draw_theme
from slime_vlm.pages.browser.values import draw_manner
from slime_vlm.pages.pdf_pages import open_pdf, page_links, read_pdf_page, render_pdf_page
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.splits import SPLITS
from slime_vlm.pages.word_lists import Words, read_words

BATCH = 48
"""Documents that are printed together: enough to make up for Chromium's start."""

_VERSION = 2  # part of the cache's file names; raise it when templates change
_OPEN = 12  # PDFs kept open
_LEAST_X_HEIGHT = 5.0  # pixels
_WORD_LIST = Path("wamerican/usr/share/dict/american-english")
# Documents that a page's rest may be filled up in, and text that is enlarged since it is read from afar.
_SHEETS = (A4, A5, LETTER)
_ZOOM = {SCREEN: 1.3, SLIDE: 1.3, (297, 210): 1.15}
_MARK = re.compile(r"http://m/(\d+)/(\d+)")


@dataclass(frozen=True)
class Document:
    """What the cache keeps of a document beside its page in the PDF.

    Attributes:
        template: Name of its template.
        kind: Kind of document.
        accent: Name of its accent colour, "" where none stands out.
        fonts: Its font families.
        marks: Text of every mark.
        facts: What it states.
        crop: Whether the page ends below its last line.
        page: Its page in the PDF; -1 when it was not found there.
    """

    template: str
    kind: str
    accent: str
    fonts: list[str]
    marks: list[str]
    facts: list[Fact]
    crop: bool
    page: int = -1


def _close_all(batches: OrderedDict[int, tuple[Any, list[Document]]]) -> None:
    for pdf, _ in batches.values():
        pdf.close()
    batches.clear()


class BrowserPages:
    """Documents laid out by a browser, by seed."""

    def __init__(
        self,
        fonts: Path | str,
        cache: Path | str,
        split: str = "train",
        *,
        x_height: tuple[float, float] = (9.0, 14.0),
        questions: int = 8,
        absent: float = 0.15,
        overview: float = 0.06,
        rare: float = 1.0,
        max_side: int = 3200,
        documents: int | None = None,
        templates: tuple[str, ...] = (),
        batch: int = BATCH,
    ) -> None:
        """Read the fonts of a split.

        Args:
            fonts: Folder that `scripts/fetch_fonts.py` filled.
            cache: Folder for printed documents; the same seeds are printed once.
            split: "train" or "heldout".
            x_height: Smallest and largest x-height in pixels; a page's is drawn between them.
            questions: Most questions a page.
            absent: Share of questions about what is not on the page.
            overview: Share of questions about the page as a whole.
            rare: How many times as often as usual families are asked that pages give little occasion for.
            max_side: Longest side in pixels; a larger page is drawn smaller.
            documents: How many documents there are; further seeds draw them again, at other sizes and with other
                questions. None for as many as seeds.
            templates: Only these templates of the split; all that are of a kind if none is named.
            batch: Documents that are printed together.

        Raises:
            ConfigError: An unknown split or template, `rare` below 1, or a folder without fonts of the split.
        """
        if split not in SPLITS:
            raise ConfigError(f"pages: unknown split {split!r}, expected one of {', '.join(SPLITS)}")
        if rare < 1:
            raise ConfigError(f"pages: rare is {rare}, expected 1 or more")
        # Pages of no kind are drawn by name alone: what other seeds give does not depend on them.
        self.templates = [
            one for one in templates_of(split) if (one.name in templates if templates else one.kind != NO_KIND)
        ]
        unknown = [name for name in templates if name not in TEMPLATES or TEMPLATES[name] not in self.templates]
        if unknown:
            raise ConfigError(f"pages: no template {unknown[0]!r} in the split {split!r}")
        import_extra("pypdfium2", str(cache), "a folder of PDF files", "pdf")
        self.fonts, self.cache, self.split = Path(fonts), Path(cache), split
        self.x_height, self.questions, self.absent, self.overview = x_height, questions, absent, overview
        self.rare = rare
        self.max_side, self.documents, self.batch = max_side, documents, batch
        self.families = read_families(self.fonts, split)
        if not self.families:
            raise ConfigError(f"{fonts}: no fonts of the split {split!r}; run scripts/fetch_fonts.py {fonts}")
        listed = self.fonts / _WORD_LIST
        self.words = Words(read_words(listed if listed.exists() else None), split)
        kinds = sorted({one.kind for one in self.templates})
        self._by_kind = {kind: [one for one in self.templates if one.kind == kind] for kind in kinds}
        chosen = ",".join(sorted(one.name for one in self.templates))
        names = ",".join(family.name for family in self.families)
        state = f"{_VERSION} {split} {batch} {chosen} {names} {len(self.words.words)}"
        self._key = f"{split}-{hashlib.sha256(state.encode()).hexdigest()[:10]}"
        self._batches: OrderedDict[int, tuple[Any, list[Document]]] = OrderedDict()
        atexit.register(_close_all, self._batches)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open documents, so that data loaders can send the source to their workers."""
        return {**self.__dict__, "_batches": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without open documents."""
        self.__dict__.update(state)
        self._batches = OrderedDict()
        atexit.register(_close_all, self._batches)

    def write(self, seed: int, number: int) -> tuple[str, str, Document]:
        """Write the document of a seed.

        Returns:
            Its style sheet, its HTML and what the cache keeps of it.
        """
        rng = random.Random(f"document {self.split} {seed}")
        template = rng.choice(self._by_kind[rng.choice(list(self._by_kind))])
        theme = draw_theme(rng, self.families)
        draft = Draft(rng, self.words, theme, draw_manner(rng), number)
        layout: Layout = template.write(draft)
        width, height = layout.size
        scope = f"d{number}"
        body = layout.html
        if layout.size in _SHEETS and layout.padding:
            body += extras(draft) if rng.random() < 0.7 else ""
            body += footer(draft) if rng.random() < 0.6 else ""
        # The height is a little less than the page's, or Chromium adds an empty page.
        style = theme.css(scope, self.fonts, _ZOOM.get(layout.size, 1.0))
        css = (
            f"@page {scope}{{size:{width}mm {height}mm;margin:0}}{style}"
            f".{scope}{{page:{scope};width:{width}mm;padding:{layout.padding}mm;min-height:{height - 0.4}mm}}"
        )
        plain = theme.accent_name in ("black", "grey") or "--accent:" in layout.html
        document = Document(
            template=template.name,
            kind=template.kind,
            accent="" if plain else theme.accent_name,
            fonts=sorted({theme.body.name, theme.head.name, theme.hand.name}),
            marks=draft.marks,
            facts=draft.facts,
            crop=layout.crop or rng.random() < 0.25,
        )
        return css, f"<section class='d {scope}'>{body}</section>", document

    def print_batch(self, batch: int) -> None:
        """Write and print a batch of documents into the cache, unless it is there."""
        pdf_path, json_path = self._paths(batch)
        if pdf_path.exists() and json_path.exists():
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        written = [self.write(batch * self.batch + number, number) for number in range(self.batch)]
        css = CSS + "body{margin:0}" + "".join(one[0] for one in written)
        body = "".join(one[1] for one in written)
        html = f"<!doctype html><meta charset='utf-8'><style>{css}</style><body>{body}"
        print_pdf(html, pdf_path)
        pages = _pages_of_documents(pdf_path)
        kept = [{**asdict(document), "page": pages.get(i, -1)} for i, (_, _, document) in enumerate(written)]
        partial = json_path.with_name(json_path.name + ".partial")
        partial.write_text(json.dumps(kept), encoding="utf-8")
        partial.replace(json_path)

    def _paths(self, batch: int) -> tuple[Path, Path]:
        stem = f"{self._key}-{batch:06d}"
        return self.cache / f"{stem}.pdf", self.cache / f"{stem}.json"

    def _batch(self, batch: int) -> tuple[Any, list[Document]]:
        if batch in self._batches:
            self._batches.move_to_end(batch)
            return self._batches[batch]
        self.print_batch(batch)
        pdf_path, json_path = self._paths(batch)
        documents = []
        for entry in json.loads(json_path.read_text(encoding="utf-8")):
            facts = [
                Fact(**{**fact, "key": tuple(fact["key"]), "questions": tuple(fact["questions"])})
                for fact in entry.pop("facts")
            ]
            documents.append(Document(**entry, facts=facts))
        self._batches[batch] = open_pdf(str(pdf_path)), documents
        if len(self._batches) > _OPEN:
            _, (oldest, _) = self._batches.popitem(last=False)
            oldest.close()
        return self._batches[batch]

    def page(self, seed: int) -> ReadablePage:
        """Draw the page of a seed; its batch is printed first where the cache lacks it.

        Raises:
            ConfigError: No Chromium, or no document of the batch can be shown at a readable size.
        """
        rng = random.Random(f"page {self.split} {seed}")
        first = seed if self.documents is None else seed % self.documents
        pdf, documents = self._batch(first // self.batch)
        for step in range(self.batch):
            document = documents[(first + step) % self.batch]
            page = self._draw(rng, pdf, document, seed) if document.page >= 0 else None
            if page is not None:
                return page
        raise ConfigError(
            f"{self.cache}: no document of batch {first // self.batch} can be shown within {self.max_side} pixels; "
            "allow a larger side"
        )

    def _draw(self, rng: random.Random, pdf: Any, document: Document, seed: int) -> ReadablePage | None:
        pdf_page = pdf[document.page]
        text = read_pdf_page(pdf_page)
        if text.x_height <= 0:
            return None
        longest = max(text.width, float(text.boxes[:, 3].max()) if document.crop else text.height)
        scale = min(rng.uniform(*self.x_height) / text.x_height, self.max_side / longest)
        if scale * text.x_height < _LEAST_X_HEIGHT:
            return None
        image = render_pdf_page(pdf_page, scale)
        links = page_links(pdf, pdf_page)
        pdf_page.close()
        page = ReadablePage(
            image=_cropped(image, scale) if document.crop else image,
            characters=text.characters,
            boxes=text.boxes * np.float32(scale),
            lines=text.lines,
            questions=[],
            source="browser",
            template=document.template,
            split=self.split,
            seed=seed,
            x_height=text.x_height * scale,
        )
        centres = (text.boxes[:, :2] + text.boxes[:, 2:]) / 2
        characters: dict[int, list[np.ndarray]] = {}
        for address, (x0, y0, x1, y1) in links:
            match = _MARK.match(address)
            if match:
                inside = (centres[:, 0] > x0) & (centres[:, 0] < x1) & (centres[:, 1] > y0) & (centres[:, 1] < y1)
                characters.setdefault(int(match[2]), []).append(np.flatnonzero(inside))
        marked = {mark: np.unique(np.concatenate(parts)).astype(np.int32) for mark, parts in characters.items()}
        stated = resolve(page, document.marks, marked, document.facts)
        sections = sorted({fact.section for fact in document.facts if fact.section})
        asker = Asker(
            rng,
            page,
            stated,
            self.words,
            kind=document.kind,
            accent=document.accent,
            sections=sections,
            rare=self.rare,
        )
        page.questions = asker.draw(self.questions, self.absent, self.overview)
        return page


def _pages_of_documents(path: Path) -> dict[int, int]:
    """Find the first page of every document of a PDF by the marks on it."""
    pages: dict[int, int] = {}
    pdf = open_pdf(str(path))
    for number in range(len(pdf)):
        page = pdf[number]
        for address, _ in page_links(pdf, page):
            match = _MARK.match(address)
            if match:
                pages.setdefault(int(match[1]), number)
        page.close()
    pdf.close()
    return pages


def _cropped(image: np.ndarray, scale: float) -> np.ndarray:
    """Cut a page off below its last line: the colour near the bottom is what is left away."""
    end = image.shape[0] - int(np.ceil(2 * scale))  # the last sliver below the document's section is white
    differs = (image[:end] != image[end - 1 : end, :1]).any((1, 2))
    last = int(np.flatnonzero(differs)[-1]) if differs.any() else end - 1
    return image[: min(end, last + 1 + round(14 * scale))]
