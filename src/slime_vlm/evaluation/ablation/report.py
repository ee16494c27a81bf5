"""Write the results of an ablation: `results.json`, `results.md` and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slime_vlm import __version__
from slime_vlm.evaluation.ablation.claims import FEWEST_PAGES, MARGIN, claims_table
from slime_vlm.evaluation.ablation.settings import GROUPS, REFERENCE
from slime_vlm.evaluation.ablation.summary import Summary, of_group, summarise
from slime_vlm.evaluation.predictions import Row

TITLES = {
    "top-p": "Probability mass that the selector keeps",
    "share": "Share of the local tokens, the best ones",
    "budget": "Fixed number of local tokens",
    "views": "Views",
    "gate": "Mixture against each adapter",
    "selector": "What chooses the local tokens",
    "resized": "Longest side, the same page scaled",
    "rendered": "Longest side, the same page drawn at that size",
    "ocr": "Outside baseline: RapidOCR and rules",
}
_COLUMNS = (
    "setting",
    "accuracy",
    "95%",
    "by seed",
    f"less {REFERENCE} (95%)",
    "absent",
    "ANLS",
    "image tokens",
    "s an image",
    "s a question",
    "MB",
)
_EXPLAINED = (
    "Accuracy is exact match on the questions whose answer is on the page, with the 95% interval of the bootstrap over "
    "pages (Wilson's over as many observations as pages where all or none are right, or no page differs); differences "
    "are on the same questions. `absent`: share of the questions about what is not on the page that say so. Image "
    "tokens: global and kept local ones. Seconds: preparing and encoding an image, then selecting and answering a "
    "question; settings that share an encoding have its seconds, so that either adapter alone has those of the "
    "mixture. MB: the most that either took on top of what was held before."
)


def write_report(rows: Sequence[Row], out: Path, origin: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Write results.json, results.md and the plots into a folder.

    Args:
        rows: all predictions.
        out: the folder.
        origin: model and settings of the run.
        notes: what was left out, and why.

    Returns:
        The Markdown.
    """
    from slime_vlm.evaluation.ablation.plots import draw_plots

    summaries = summarise(rows)
    text = markdown(rows, summaries, origin, notes)
    content = {
        "slime_vlm": __version__,
        "origin": dict(origin),
        "notes": list(notes),
        "settings": {summary.setting.name: summary.as_dict() for summary in summaries},
    }
    _write(out / "results.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _write(out / "results.md", text)
    draw_plots(summaries, out)
    return text


def markdown(rows: Sequence[Row], summaries: Sequence[Summary], origin: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The tables, ready for `docs/results.md`."""
    reference = next((summary for summary in summaries if summary.setting.name == REFERENCE), None)
    if reference is None:
        return "No question with an answer on its page.\n"
    what = origin.get("records") or f"rendered pages of {origin.get('tiles')} tiles, split {origin.get('split')}"
    seeds = len(reference.by_seed)
    head = (
        f"Model {origin.get('model')} on {what}: {reference.images} images"
        + (f" of {seeds} seeds" if seeds > 1 else "")
        + f", {reference.questions} questions. {_EXPLAINED}"
    )
    parts = [head]
    claims = claims_table(rows)
    if claims:
        rules = (
            f"enough: surely no more than {MARGIN} lost; better: surely better, and what is surely less than {MARGIN} "
            f"better does not hold; nothing is said of fewer than {FEWEST_PAGES} pages; each line by itself"
        )
        parts.append(f"**What holds here** ({rules})\n\n{claims}")
    for group in _groups_with_a_table(summaries):
        parts.append(f"**{TITLES[group]}**\n\n{_table(of_group(summaries, group))}")
    parts.append(f"**By kind of page**\n\n{_kinds(summaries)}")
    if notes:
        parts.append("Left out:\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _groups_with_a_table(summaries: Sequence[Summary]) -> list[str]:
    """Groups with a setting of their own.

    The reference and `all` stand in several, which would make tables of these two wherever nothing else was asked; they
    alone have one table.
    """
    own = [group for group in GROUPS if any(summary.setting.groups == (group,) for summary in summaries)]
    return own or [group for group in GROUPS if len(of_group(summaries, group)) > 1][:1]


def _table(summaries: Sequence[Summary]) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    for summary in summaries:
        low, high = summary.interval
        seeds = " ".join(f"{value:.2f}" for value in summary.by_seed.values())
        difference = ""
        if summary.difference is not None:
            value, least, most = summary.difference
            difference = f"{value:+.2f} ({least:+.2f} to {most:+.2f})"
        cells = [
            summary.setting.name,
            f"{summary.accuracy:.2f}",
            f"{low:.2f}-{high:.2f}",
            seeds,
            difference,
            f"{summary.absent[0]:.2f} ({summary.absent[1]})" if summary.absent[1] else "",
            f"{summary.anls:.2f}",
            "" if summary.image_tokens is None else f"{summary.image_tokens:.0f}",
            f"{summary.encode_seconds:.2f}",
            f"{summary.answer_seconds:.3f}",
            "" if summary.megabytes is None else f"{summary.megabytes:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _kinds(summaries: Sequence[Summary]) -> str:
    """Accuracy by kind of page, for the settings that see the whole image and the outside baseline."""
    shown = [summary for summary in summaries if summary.setting.name in (REFERENCE, "all", "best 50%", "ocr")]
    kinds = sorted({kind for summary in shown for kind in summary.by_group})
    lines = [f"| setting | {' | '.join(kinds)} |", "|" + " --- |" * (len(kinds) + 1)]
    for summary in shown:
        cells = [
            f"{summary.by_group[kind][0]:.2f} ({summary.by_group[kind][1]})" if kind in summary.by_group else ""
            for kind in kinds
        ]
        lines.append(f"| {summary.setting.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)
