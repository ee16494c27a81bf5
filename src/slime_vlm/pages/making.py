"""Make one page from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from slime_vlm.errors import ConfigError
from slime_vlm.pages.charts import fill_chart
from slime_vlm.pages.forms import fill_form, fill_invoice, fill_receipt
from slime_vlm.pages.geometry import fill_geometry
from slime_vlm.pages.page import Page
from slime_vlm.pages.scenes import fill_map, fill_scene
from slime_vlm.pages.settings import PageSettings
from slime_vlm.pages.sheet import Sheet
from slime_vlm.pages.sizes import choose_page_size
from slime_vlm.pages.specimen import fill_specimen
from slime_vlm.pages.tables import fill_table

_FILL: dict[str, Callable[[Sheet], None]] = {
    "form": fill_form,
    "invoice": fill_invoice,
    "receipt": fill_receipt,
    "table": fill_table,
    "chart": fill_chart,
    "scene": fill_scene,
    "map": fill_map,
    "geometry": fill_geometry,
    "specimen": fill_specimen,
}
_TRIES = 20


def make_page(seed: int, settings: PageSettings) -> Page:
    """Lay out the page of a seed. The same seed and settings give the same page in every process.

    Raises:
        ConfigError: The seed is negative, or no page has anything to ask about under these settings.
    """
    if seed < 0:
        raise ConfigError(f"pages: seed is {seed}, expected 0 or more")
    rng = random.Random(seed)
    names = [name for name, share in settings.kinds.items() if share > 0]
    kind = rng.choices(names, [settings.kinds[name] for name in names])[0]
    for attempt in range(_TRIES):
        sheet = Sheet(rng, *choose_page_size(rng, settings), settings)
        _FILL[kind](sheet)
        # A narrow page may have no room for its content. Then draw another size.
        answers = {question.value_runs for question in sheet.questions if question.value_runs}
        if kind == "specimen" or len(answers) > (1 if attempt < _TRIES // 2 else 0):
            return sheet.page(kind, seed)
    raise ConfigError(
        f"pages: nothing to ask fits a {kind} page of {settings.tiles} tiles at text_px {settings.text_px}: "
        "allow more tiles or smaller text"
    )
