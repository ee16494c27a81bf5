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
    "resized": "Longest side, the same page resized",
    "rendered": "Longest side, the same page rendered at that size",
    "ocr": "Baseline: RapidOCR and rules",
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
    "s/image",
    "s/question",
    "MB",
)
_EXPLAINED = (
    "Accuracy is exact match on the questions whose answer is on the page. Its 95% interval comes from the bootstrap "
    "over pages. Where all or no answers are right, or no page differs, it is Wilson's interval over as many "
    "observations as pages. Differences are on the same questions. `absent`: share of the questions about something "
    "that is not on the page that are answered so. Image tokens: global and kept local ones. Seconds: preparing and "
    "encoding an image, then selecting tokens and answering a question. Settings that share an encoding have the same "
    "seconds per image, so that each adapter alone has those of the mixture. MB: largest growth of memory in either "
    "step."
)


def write_report(rows: Sequence[Row], out: Path, origin: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Write results.json, results.md and the plots to a folder.

    Args:
        rows: All predictions.
        out: The folder.
        origin: Model and settings of the run.
        notes: What was left out, and why.

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
    """Return the tables as Markdown, ready for `docs/results.md`."""
    reference = next((summary for summary in summaries if summary.setting.name == REFERENCE), None)
    if reference is None:
        return "No question has its answer on its page.\n"
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
            f"by 95% interval: `enough` holds if less than {MARGIN} is lost, `better` if the difference is above 0; "
            f"`better` does not hold if it is below {MARGIN}; fewer than {FEWEST_PAGES} pages give no verdict"
        )
        parts.append(f"**What holds here** ({rules})\n\n{claims}")
    for group in _groups_with_a_table(summaries):
        parts.append(f"**{TITLES[group]}**\n\n{_table(of_group(summaries, group))}")
    parts.append(f"**By kind of page**\n\n{_kinds(summaries)}")
    if notes:
        parts.append("Left out:\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _groups_with_a_table(summaries: Sequence[Summary]) -> list[str]:
    """Return the groups that have a setting of their own.

    The reference and `all` belong to several groups. Without this rule every group would get a table of these two. If
    there is nothing else, they get one table.
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
    """Return a table of accuracy by kind of page, for the settings that see the whole image and the baseline."""
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
