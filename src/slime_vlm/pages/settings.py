"""Settings of the page renderer, as a recipe holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from slime_vlm.errors import ConfigError
from slime_vlm.pages.values import SPLITS
from slime_vlm.pages.vocabulary import kinds

_DEFAULT_KINDS = {
    "form": 0.18,
    "invoice": 0.14,
    "receipt": 0.13,
    "table": 0.30,
    "chart": 0.10,
    "scene": 0.06,
    "map": 0.04,
    "geometry": 0.05,
}


@dataclass(frozen=True)
class PageSettings:
    """Settings of the page renderer. The defaults make pages of 700 to 3000 pixels.

    Attributes:
        kinds: Share of every kind of page. Kinds that are left out are not made.
        tiles: Fewest and most tiles of the grid that the image processor chooses for a page.
        text_px: Smallest and largest font size in pixels of the tile grid.
        page_scale: Smallest and largest number of page pixels for one pixel of the tile grid.
        max_side: Longest side of a page in pixels.
        view_size: Side of a tile.
        max_tiles: Most tiles that the image processor may choose.
        split: "train", "heldout" (values, layouts, pairings) or "heldout_fonts" (fonts as well).
        questions: Questions per page.
        absent: Share of questions about something that is not on the page.
        noise: Strength of the scan noise; 0 switches it off.
        max_value_length: Longest form value in characters.
        fonts: "all", or "pillow" for the one face that needs no extra package.

    Raises:
        ConfigError: A value is out of range, or a kind or the split is unknown.
    """

    kinds: dict[str, float] = field(default_factory=lambda: dict(_DEFAULT_KINDS))
    tiles: tuple[int, int] = (4, 6)
    text_px: tuple[float, float] = (20.0, 30.0)
    page_scale: tuple[float, float] = (1.4, 3.9)
    max_side: int = 3000
    view_size: int = 256
    max_tiles: int = 7
    split: str = "train"
    questions: int = 8
    absent: float = 0.1
    noise: float = 1.0
    max_value_length: int = 10
    fonts: str = "all"

    def __post_init__(self) -> None:
        """Check every value, and turn lists from YAML into tuples."""
        for name in ("tiles", "text_px", "page_scale"):
            pair = getattr(self, name)
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ConfigError(f"pages: {name} is {pair!r}, expected two positive numbers, smallest first")
            object.__setattr__(self, name, tuple(pair))
        unknown = set(self.kinds) - set(kinds())
        if unknown:
            raise ConfigError(f"pages: unknown kind {sorted(unknown)[0]!r}, expected one of {', '.join(kinds())}")
        if not self.kinds or min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise ConfigError("pages: kinds has no positive share, expected a share above 0 for at least one kind")
        if self.split not in SPLITS:
            raise ConfigError(f"pages: unknown split {self.split!r}, expected one of {', '.join(SPLITS)}")
        if self.fonts not in ("all", "pillow"):
            raise ConfigError(f'pages: unknown fonts {self.fonts!r}, expected "all" or "pillow"')
        if not 0 <= self.absent <= 1:
            raise ConfigError(f"pages: absent is {self.absent}, expected a share between 0 and 1")
        if self.questions < 1 or self.max_value_length < 5 or self.noise < 0:
            raise ConfigError("pages: expected questions >= 1, max_value_length >= 5 and noise >= 0")
        if self.text_px[1] > self.view_size / 4:
            raise ConfigError(
                f"pages: text_px up to {self.text_px[1]} in views of {self.view_size}, expected at most a quarter"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PageSettings:
        """Build settings from a mapping that was read from YAML.

        Raises:
            ConfigError: A key is unknown, or a value is out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(f"pages: unknown setting {unknown[0]!r}, expected one of {', '.join(known)}")
        return cls(**values)
