"""The look of one document: its fonts, colours, sizes and habits of writing keys."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slime_vlm.pages.browser.fonts import Family

COLOURS: dict[str, tuple[str, ...]] = {
    "blue": ("#1f4e9c", "#2f6fde", "#15397a", "#0b62a8"),
    "green": ("#1f7a3d", "#2e9e5b", "#0f5f3a"),
    "red": ("#b3202a", "#d13438", "#8f1d22"),
    "orange": ("#d9730d", "#e8590c"),
    "purple": ("#6b3fa0", "#7d4cdb", "#54278f"),
    "teal": ("#0f7b83", "#128c8c"),
    "black": ("#111111", "#222222", "#1a1a1a", "#000000"),
    "grey": ("#555b61", "#666666"),
    "brown": ("#7a4b24", "#6b4423"),
}
"""Accent colours by the name that a question about them expects."""

_PAPERS = ("#ffffff",) * 8 + ("#fffdf7", "#fbfbfb", "#fdf8ec", "#f4f8fb")


@dataclass(frozen=True)
class Theme:
    """How a document looks.

    Attributes:
        body: Family of the text.
        head: Family of headings.
        hand: Family of what is filled in by hand; the body's where nothing is.
        accent: Colour of headings, rules and bands.
        accent_name: Its name.
        paper: Background.
        ink: Colour of the text.
        soft: Pale background of bands and table heads.
        rule: Colour of thin lines.
        size: Font size in points.
        leading: Line height as a multiple of the size.
        case: How keys are written: "as is", "upper", "title" or "lower".
        colon: What stands after a key on the same line.
        bold_keys: Whether keys are bold.
        bold_values: Whether values are bold.
        radius: Corner radius in pixels.
    """

    body: Family
    head: Family
    hand: Family
    accent: str
    accent_name: str
    paper: str
    ink: str
    soft: str
    rule: str
    size: float
    leading: float
    case: str
    colon: str
    bold_keys: bool
    bold_values: bool
    radius: int

    def write_key(self, key: str) -> str:
        """Write a key in the document's case."""
        if self.case == "upper":
            return key.upper()
        if self.case == "lower":
            return key.lower()
        return key.title() if self.case == "title" and key.isascii() and "'" not in key else key

    def css(self, scope: str, fonts: Path, zoom: float = 1.0) -> str:
        """Return the style sheet of the document's own section, `scope` its class, with text `zoom` times as large."""
        faces = []
        for alias, family in (("body", self.body), ("head", self.head), ("hand", self.hand)):
            for face, file in family.faces.items():
                style = "italic" if face == "italic" else "normal"
                weight = "bold" if face == "bold" else "normal"
                url = (fonts / file).resolve().as_uri()
                faces.append(
                    f"@font-face{{font-family:'{scope}-{alias}';src:url('{url}');font-style:{style};font-weight:{weight}}}"
                )
        return "".join(faces) + (
            f".{scope}{{--accent:{self.accent};--ink:{self.ink};--soft:{self.soft};--rule:{self.rule};"
            f"--radius:{self.radius}px;--head:'{scope}-head';--hand:'{scope}-hand';background:{self.paper};"
            f"color:{self.ink};font:{self.size * zoom:.1f}pt/{self.leading:.2f} '{scope}-body';"
            f".k{{font-weight:{'bold' if self.bold_keys else 'normal'}}}"
            f".v{{font-weight:{'bold' if self.bold_values else 'normal'}}}}}"
        )


def _mixed(colour: str, share: float) -> str:
    """Mix a colour with white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * share):02x}" for part in parts)


def draw_theme(rng: random.Random, families: Sequence[Family]) -> Theme:
    """Draw the look of a document from the families of a split."""
    texts = [family for family in families if family.use == "text"] or list(families)
    displays = [family for family in families if family.use == "display"] or texts
    body = rng.choice(texts)
    draw = rng.random()
    head = body if draw < 0.6 else rng.choice(texts) if draw < 0.9 else rng.choice(displays)
    name = rng.choice(list(COLOURS)) if rng.random() < 0.75 else "black"
    accent = rng.choice(COLOURS[name])
    return Theme(
        body=body,
        head=head,
        hand=rng.choice(displays) if rng.random() < 0.3 else body,
        accent=accent,
        accent_name=name,
        paper=rng.choice(_PAPERS),
        ink=rng.choice(("#000000", "#111111", "#222222", "#1a1a2e", "#333333")),
        soft=_mixed(accent, rng.choice((0.06, 0.1, 0.15))),
        rule=rng.choice((_mixed(accent, 0.4), "#cccccc", "#999999", "#dddddd", "#000000")),
        size=rng.choice((8.0, 9.0, 9.5, 10.0, 10.0, 10.5, 11.0, 12.0)),
        leading=rng.choice((1.2, 1.3, 1.35, 1.4, 1.5, 1.6)),
        case=rng.choices(("as is", "upper", "title", "lower"), (70, 12, 14, 4))[0],
        colon=rng.choices((":", "", " :", " –", " =", "."), (60, 28, 4, 3, 2, 3))[0],
        bold_keys=rng.random() < 0.35,
        bold_values=rng.random() < 0.15,
        radius=rng.choice((0, 0, 0, 2, 4, 8, 12)),
    )
