"""The settings that an ablation compares. Each changes one thing about the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.errors import ConfigError, nearest

REFERENCE = "slime"
"""The unchanged model. Every other setting is compared with it on the same questions."""

SIDES = (336, 672, 1008, 1344, 2688, 4000)
"""Longest sides of the image in pixels."""

GROUPS = ("top-p", "share", "budget", "views", "gate", "selector", "resized", "rendered", "ocr")
"""Groups of settings, in the order of the tables."""

_TOP_P = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_BUDGETS = (16, 64, 128, 256)


@dataclass(frozen=True)
class Setting:
    """One way to answer the questions of an image.

    Attributes:
        name: Name in tables and in `--settings`.
        groups: Groups that it belongs to. One setting may be in several tables.
        config: Fields of the model's config that it changes.
        share: Share of an image's local tokens to keep.
        as_many: Keep as many local tokens as the reference kept for the question: "best" keeps the best ones by the
            selector's score, "random" any, and "" does not apply this rule.
        side: Longest side of the image in pixels. None leaves the image unchanged.
        rendered: Whether the page is rendered at that side instead of resized to it.
        ocr: Whether this is the OCR baseline, which does not use the model.
    """

    name: str
    groups: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    share: float | None = None
    as_many: str = ""
    side: int | None = None
    rendered: bool = False
    ocr: bool = False


SETTINGS: tuple[Setting, ...] = (
    # First, because other settings keep as many tokens as it did.
    Setting(REFERENCE, GROUPS),
    Setting(
        "all", ("top-p", "share", "budget", "views", "selector"), {"selector_top_p": 1.0, "max_local_tokens": None}
    ),
    *(Setting(f"top-p {p}", ("top-p",), {"selector_top_p": p, "max_local_tokens": None}) for p in _TOP_P),
    *(Setting(f"best {share:.0%}", ("share",), share=share) for share in _SHARES),
    *(Setting(f"best {number}", ("budget",), {"max_local_tokens": number}) for number in _BUDGETS),
    Setting("global only", ("views",), {"views": "global", "max_local_tokens": None}),
    Setting("local only", ("views",), {"views": "local"}),
    Setting("mlp alone", ("gate",), {"gate": "mlp"}),
    Setting("attention alone", ("gate",), {"gate": "attention"}),
    Setting("question", ("selector",), {"selector_text": "question"}),
    Setting("prompt", ("selector",), {"selector_text": "prompt"}),
    Setting("question as many", ("selector",), {"selector_text": "question"}, as_many="best"),
    Setting("prompt as many", ("selector",), {"selector_text": "prompt"}, as_many="best"),
    Setting("random as many", ("selector",), as_many="random"),
    *(Setting(f"resized to {side}", ("resized",), side=side) for side in SIDES),
    *(Setting(f"rendered at {side}", ("rendered",), side=side, rendered=True) for side in SIDES),
    Setting("ocr", ("ocr",), ocr=True),
)


def find_settings(names: str) -> list[Setting]:
    """Return the settings that a list such as `top-p,ocr` names, in the order of the tables.

    The reference is always included.

    Args:
        names: Names of settings or groups, separated by commas. "" means all settings.

    Raises:
        ConfigError: A name is unknown. The message suggests the nearest one.
    """
    wanted = {REFERENCE}
    for name in filter(None, (part.strip() for part in names.split(","))):
        found = {setting.name for setting in SETTINGS if name == setting.name or name in setting.groups}
        if not found:
            known = [*GROUPS, *(setting.name for setting in SETTINGS)]
            raise ConfigError(f"--settings: '{name}' is neither a setting nor a group of them; {nearest(name, known)}")
        wanted |= found
    return [setting for setting in SETTINGS if not names.strip() or setting.name in wanted]


def applicable(settings: Sequence[Setting], config: Any, *, rendered: bool) -> tuple[list[Setting], list[str]]:
    """Leave out the settings that do not apply to a model or its images.

    Args:
        settings: The requested settings.
        config: The model's `SlimeConfig`.
        rendered: Whether the images are rendered pages, which can be rendered at any size. Scans cannot.

    Returns:
        The settings that apply, and one line for each reason why others do not.
    """
    kept: list[Setting] = []
    reasons: list[str] = []
    for setting in settings:
        reason = ""
        if not config.selects_tokens and _needs_selector(setting):
            reason = "the model does not select local tokens: no settings of top-p, share, budget and selector"
        elif not setting.as_many and setting.config.get("selector_text") == config.selector_text:
            reason = f"the model's selector uses the {config.selector_text} already: see `{REFERENCE}`"
        elif "gate" in setting.config and config.projector_type != "gated":
            reason = "the model has no mixture of adapters: no settings of gate"
        elif setting.rendered and not rendered:
            reason = "images of records cannot be rendered at another size: only `resized`"
        elif setting.config.get("views") not in (None, config.views) and config.views != "both":
            reason = f"the model uses only {config.views} views: no settings of other views"
        if not reason:
            kept.append(setting)
        elif reason not in reasons:
            reasons.append(reason)
    return kept, reasons


def _needs_selector(setting: Setting) -> bool:
    if setting.name == "all":
        return False
    fields = {"selector_top_p", "selector_text", "max_local_tokens"} & set(setting.config)
    return bool(fields or setting.share or setting.as_many) and "views" not in setting.config
