"""The README.md of a trained model: its origin, its stages, its data, the machine, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slime_vlm.model.hub_card import front_matter, usage
from slime_vlm.training.recipe import Recipe, Stage


def write_card(
    recipe: Recipe,
    stage: Stage,
    before: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
) -> str:
    """Return the text of the card.

    Args:
        recipe: The recipe of the run.
        stage: The stage that trained the model.
        before: Records of the stages that it builds on, first to last, see `stage_report.stage_record`.
        record: Record of this stage.
    """
    records = [*before, record]
    environment = record["environment"]
    return "\n".join(
        [
            *front_matter(_base_models(recipe)),
            "",
            f"# {recipe.name}, stage {stage.name}",
            "",
            recipe.description or "A SliME vision-language model.",
            "",
            "**Licence:** to be filled in by whoever publishes this model.",
            "",
            *usage("FOLDER"),
            "",
            "## Made from",
            "",
            *_origin(recipe),
            *_adapters(stage),
            "",
            "## Stages",
            "",
            "| Stage | Trained | Steps | Samples a step | Learning rate | First loss | Last loss | Hours |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *map(_stage_row, records),
            "",
            "## Data",
            "",
            *(line for entry in records for line in _data(entry)),
            "",
            "## Machine",
            "",
            *_machine(environment),
            "",
            "## Recipe",
            "",
            f"Recipe `{recipe.name}`{_commit(environment)}; `recipe.yaml` in the folder of the run holds every value.",
            "",
            "No evaluation is part of this card. `slime eval run` scores the model on benchmarks.",
            "",
        ]
    )


def _base_models(recipe: Recipe) -> list[str]:
    names = [recipe.model.path, recipe.model.vision, recipe.model.llm]
    return [name for name in names if name is not None and "/" in name and _public(name) == name]


def _public(name: str) -> str:
    """Return the last part of a local path, which means nothing on other machines. Hub ids stay unchanged."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name


def _origin(recipe: Recipe) -> list[str]:
    source = recipe.model
    if source.path is not None:
        return [f"- checkpoint: {_public(source.path)}"]
    if source.vision and source.llm:
        return [f"- vision encoder: {_public(source.vision)}", f"- language model: {_public(source.llm)}"]
    return ["- nothing: all weights were drawn at random and trained by the stages below"]


def _adapters(stage: Stage) -> list[str]:
    if stage.lora is None or stage.lora.merge:
        return []
    return [
        "",
        "This folder holds low-rank adapters and the parts that trained whole, over a model that "
        "`base_model_name_or_path` in `adapter_config.json` names. Before publishing it write a name there that others "
        "can find, or make a whole model with `slime merge FOLDER OUT`.",
    ]


def _stage_row(record: Mapping[str, Any]) -> str:
    # Records of older runs have fewer keys.
    losses = record.get("losses") or {}
    totals = record.get("totals") or {}
    numbers = [
        record["stage"],
        ", ".join(record.get("parts", [])),
        f"{record['steps']:,}",
        record.get("batch_size", ""),
        _number(record.get("learning_rate")),
        _number(losses.get("first")),
        _number(losses.get("last")),
        _number(totals["seconds"] / 3600) if totals else "",
    ]
    return f"| {' | '.join(map(str, numbers))} |"


def _data(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for source in record.get("data", []):
        if "pages" in source:
            lines.append(f"- stage {record['stage']}: pages rendered by slime-vlm, {source['pages']:,} of them")
            continue
        mark = source.get("content") or source.get("names_and_sizes")
        what = "content" if "content" in source else "names and sizes"
        told = f" ({what} {mark})" if mark else ""
        lines.append(f"- stage {record['stage']}: {_public(source['path'])}, {source['records']:,} records{told}")
    return lines


def _machine(environment: Mapping[str, Any]) -> list[str]:
    machine, versions = environment["machine"], environment["versions"]
    devices = ", ".join(machine["devices"]) or f"{machine['processor']}, no GPU"
    processes = environment["processes"]
    return [
        f"- {devices}; {processes} process{'es' if processes > 1 else ''}",
        f"- {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]


def _commit(environment: Mapping[str, Any]) -> str:
    found = environment["commit"]
    if found is None:
        return ""
    return f", commit {found['commit'][:12]}" + (" with changes" if found["dirty"] else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
