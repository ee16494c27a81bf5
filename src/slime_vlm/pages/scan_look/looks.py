"""Looks: which effects come together on a scanned, copied, faxed or photographed page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from slime_vlm.errors import ConfigError
from slime_vlm.pages.readable import ReadablePage
from slime_vlm.pages.scan_look import effects, geometry

_Effect = Callable[[np.random.Generator, np.ndarray, float], np.ndarray]
_EFFECTS: dict[str, _Effect] = {
    "blur": effects.blur,
    "motion": effects.motion,
    "grain": effects.grain,
    "jpeg": effects.jpeg,
    "shadow": effects.shadow,
    "low contrast": effects.low_contrast,
    "coloured paper": effects.coloured_paper,
    "colour cast": effects.colour_cast,
    "grey": effects.grey,
    "bleed-through": effects.bleed_through,
    "one bit": effects.one_bit,
    "fax": effects.fax,
    "specks": effects.specks,
    "fold": effects.fold,
    "edges": effects.edges,
}
# After these nobody can say what colour the page had.
_RECOLOURING = frozenset({"coloured paper", "colour cast", "grey", "one bit", "fax"})
_MOVES = {"tilt": geometry.tilt, "perspective": geometry.perspective}

LOOKS: dict[str, tuple[tuple[str, float], ...]] = {
    "clean": (),
    "light": (("blur", 0.3), ("grain", 0.3), ("jpeg", 0.5)),
    "scan": (
        ("coloured paper", 0.15),
        ("bleed-through", 0.2),
        ("fold", 0.15),
        ("tilt", 0.5),
        ("blur", 0.5),
        ("low contrast", 0.3),
        ("edges", 0.15),
        ("grey", 0.4),
        ("specks", 0.15),
        ("grain", 0.6),
        ("jpeg", 0.7),
    ),
    "copy": (("tilt", 0.6), ("blur", 0.5), ("edges", 0.3), ("specks", 0.5), ("one bit", 1.0)),
    "fax": (("tilt", 0.5), ("fax", 1.0), ("specks", 0.3)),
    "camera": (
        ("coloured paper", 0.1),
        ("fold", 0.25),
        ("perspective", 0.9),
        ("shadow", 0.8),
        ("colour cast", 0.6),
        ("blur", 0.5),
        ("motion", 0.15),
        ("grain", 0.6),
        ("jpeg", 0.8),
    ),
}
"""The effects of every look in order, each with the chance that it is applied."""

_MIXED = {"light": 0.25, "scan": 0.35, "copy": 0.1, "fax": 0.05, "camera": 0.25}


def apply_look(page: ReadablePage, look: str, seed: int) -> ReadablePage:
    """Give a page a look; the same page, look and seed give the same pixels.

    Args:
        page: The page.
        look: A name of `LOOKS`, or "mixed" to draw one.
        seed: Seed of the look.

    Returns:
        A new page whose boxes have moved with the pixels. Characters may lie a little outside the image where a tilt
        cuts a corner off.

    Raises:
        ConfigError: An unknown look.
    """
    rng = np.random.default_rng([seed, 18])
    if look == "mixed":
        look = str(rng.choice(list(_MIXED), p=list(_MIXED.values())))
    if look not in LOOKS:
        raise ConfigError(f"pages: unknown look {look!r}, expected mixed or one of {', '.join(LOOKS)}")
    image, boxes, x_height = page.image, page.boxes, page.x_height
    applied: list[str] = []
    for name, chance in LOOKS[look]:
        if rng.random() >= chance:
            continue
        if name in _MOVES:
            image, boxes, grown = _MOVES[name](rng, image, boxes)
            x_height *= grown
        else:
            image = _EFFECTS[name](rng, image, x_height)
        applied.append(name)
    questions = page.questions
    if not _RECOLOURING.isdisjoint(applied):
        questions = [question for question in questions if question.family != "colour"]
    return replace(
        page, image=image, boxes=boxes, x_height=x_height, looks=(*page.looks, *applied), questions=questions
    )
