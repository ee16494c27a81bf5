"""Checks between the keys of a recipe. The rule of a single key is beside its field in `schema.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slime_vlm.errors import ConfigError, nearest
from slime_vlm.pages import PageSettings
from slime_vlm.training.parts import PART_PREFIXES

if TYPE_CHECKING:
    from slime_vlm.training.recipe.schema import DataSource, Recipe, Stage


def recipe_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong with a recipe whose single keys are all valid; an empty list if it can run."""
    problems = []
    names = [stage.name for stage in recipe.stages]
    for name in {n for n in names if names.count(n) > 1}:
        problems.append(f"two stages are named '{name}'")
    for i, stage in enumerate(recipe.stages):
        where = f"stages.{stage.name}"
        for part in stage.trains:
            if part not in PART_PREFIXES:
                problems.append(f"'{where}.trains' names '{part}': {nearest(part, PART_PREFIXES)}")
        for part in stage.part_learning_rates:
            if part not in stage.trains:
                problems.append(f"'{where}.part_learning_rates' names '{part}', which this stage does not train")
        if stage.cache_features is not None and "vision_tower" in stage.trains:
            problems.append(f"'{where}.cache_features' needs a frozen vision encoder, and 'trains' names vision_tower")
        if stage.cache_features is not None and stage.data.pages is not None:
            problems.append(f"'{where}.cache_features' needs 'data.records' or 'data.mixture': pages never repeat")
        if stage.lora is not None and "language_model" not in stage.trains:
            problems.append(f"'{where}.lora' needs 'language_model' among 'trains'")
        problems += _lora_problems(recipe, stage, names[i - 1 : i])
        given = [key for key in ("pages", "records", "mixture") if getattr(stage.data, key) is not None]
        if len(given) != 1:
            problems.append(f"'{where}.data' needs exactly one of 'pages', 'records' and 'mixture'")
        elif stage.data.pages is None and stage.page_training is not None:
            problems.append(f"'{where}.page_training' needs 'data.pages'")
        elif stage.data.pages is not None and stage.steps is None:
            problems.append(f"'{where}.steps' is missing: a stage on pages has no epochs")
        pages = stage.page_training
        if pages is not None and pages.tiles_read is not None and pages.objective != "read":
            problems.append(f"'{where}.page_training.tiles_read' needs 'objective: read'")
        if stage.packing and stage.data.pages is not None:
            problems.append(f"'{where}.packing' needs records: rows of pages hold several questions already")
        if stage.data.pages is not None:
            problems += _page_problems(stage.data.pages, {**recipe.model.config, **stage.config}, f"{where}.data")
            if stage.data.labels != "answers":
                problems.append(f"'{where}.data.labels: {stage.data.labels}' needs 'data.records'")
        problems += _mixture_problems(stage.data, f"{where}.data")
        for start in stage.start or []:
            if start not in names[:i]:
                problems.append(f"'{where}.start' names '{start}', which is not an earlier stage")
        if stage.batch_size % (stage.micro_batch_size or stage.batch_size):
            problems.append(
                f"'{where}.batch_size' is {stage.batch_size}, expected a multiple of micro_batch_size "
                f"{stage.micro_batch_size}"
            )
    source = recipe.model
    if source.path is None and not (source.vision and source.llm) and "text_config" not in source.config:
        problems.append("'model' needs 'path', or 'vision' and 'llm', or a 'config' with vision_config and text_config")
    return problems


def _lora_problems(recipe: Recipe, stage: Stage, before: list[str]) -> list[str]:
    lora, where = stage.lora, f"stages.{stage.name}.lora"
    problems = []
    start = before if stage.start is None else stage.start
    for name in start[1:]:
        apart = [s for s in recipe.stages if s.name == name and s.lora is not None and not s.lora.merge]
        if apart:
            problems.append(f"'stages.{stage.name}.start' adds '{name}', which keeps its adapters apart; name it first")
    if lora is None:
        return problems
    if lora.base_weights == "bfloat16" and not stage.bf16:
        problems.append(f"'{where}.base_weights: bfloat16' needs 'bf16: true'")
    if lora.base_weights == "4bit" and lora.merge:
        problems.append(f"'{where}.base_weights: 4bit' needs 'merge: false'; slime merge merges them afterwards")
    if not lora.merge and (len(start) > 1 or (not start and recipe.model.path is None)):
        problems.append(f"'{where}.merge: false' needs one base checkpoint: 'model.path', or one stage to start from")
    return problems


def _mixture_problems(data: DataSource, where: str) -> list[str]:
    problems = []
    parts = data.mixture or []
    if data.mixture is not None and data.images is not None:
        problems.append(f"'{where}.images' goes with 'records'; give each source of the mixture its own 'images'")
    if len({part.weight is None for part in parts}) > 1:
        problems.append(f"'{where}.mixture' gives a weight to some sources only; give one to all of them")
    for index, part in enumerate(parts):
        if part.weight is not None and part.passes is not None:
            problems.append(f"'{where}.mixture.{index}' has both 'weight' and 'passes', expected one of them")
    return problems


def _page_problems(pages: dict[str, Any], config: dict[str, Any], where: str) -> list[str]:
    # The view size comes from the model, which may not be available yet. Without it, no text size is too large.
    sizes = {"view_size": config.get("view_size", 1_000_000), "max_tiles": config.get("max_tiles", 7)}
    try:
        PageSettings.from_dict({**sizes, **pages})
    except ConfigError as error:
        return [f"'{where}.pages': {str(error).removeprefix('pages: ')}"]
    return []
