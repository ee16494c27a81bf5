"""Dataset, collator and objective of a stage, on conversation records or on rendered pages."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slime_vlm.data import MixtureOrder, RecordDataset, Share, open_source
from slime_vlm.errors import ConfigError
from slime_vlm.training.packing import EvenOrder, TokensOf
from slime_vlm.training.pages.data import (
    AnswerCollator,
    PageDataset,
    PageShape,
    ReadCollator,
    SymbolicTokensCollator,
)
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.pages.objectives import AnswerObjective, ReadObjective, SymbolicTokensObjective
from slime_vlm.training.records import RecordCollator, part_of_limits

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.training.recipe import Recipe, Stage

SEEDS_PER_STAGE = 100_000_000
"""Distance between the first page seeds of two stages."""


@dataclass(frozen=True)
class StageData:
    """What a stage learns from.

    Attributes:
        dataset: Samples in the order of the run.
        collator: Turns samples into a batch.
        objective: Loss on a batch; None for the model's own loss.
    """

    dataset: Any
    collator: Callable[[Any], dict[str, Any]]
    objective: AnswerObjective | ReadObjective | SymbolicTokensObjective | None = None


def num_processes() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def stage_data(
    recipe: Recipe, stage: Stage, model: SlimeForConditionalGeneration, processor: SlimeProcessor
) -> StageData:
    """Build the dataset, collator and objective of a stage.

    Args:
        recipe: The recipe.
        stage: One of its stages.
        model: The stage's model; gets the training-only heads that the objective needs.
        processor: The model's processor.

    Raises:
        ConfigError: The stage trains on pages, and the model has no visual vocabulary for pages.
        DataError: Records cannot be read.
    """
    build = _records if stage.data.parts else _pages
    return build(recipe, stage, model, processor)


def _records(
    recipe: Recipe, stage: Stage, model: SlimeForConditionalGeneration, processor: SlimeProcessor
) -> StageData:
    parts = stage.data.parts
    records = RecordDataset(*(open_source(part.path, part.images, part.config, part.split) for part in parts))
    style = "plain" if stage.data.conversation == "plain" else None
    limit, views = stage.max_sequence_length, model.config.views
    mixture = records, [Share(part.passes, part.weight) for part in parts], recipe.seed + stage.seed
    order = MixtureOrder(*mixture)
    if stage.packing:
        tokens_of = TokensOf(records, model.config, limit)
        order = EvenOrder(*mixture, tokens_of, stage.batch_size, stage.samples_a_pass(num_processes()))
    order.count = stage.batch_size * (stage.steps or math.ceil(stage.epochs * order.epoch_length / stage.batch_size))
    limits = part_of_limits(records.limits(stage.data.max_bad), num_processes(), order.passes())
    # The dataset is the order alone. The collator opens records, since it may have to open the next one instead.
    return StageData(order, RecordCollator(records, processor, style, stage.data.labels, limit, limits, views))


def _pages(recipe: Recipe, stage: Stage, model: SlimeForConditionalGeneration, processor: SlimeProcessor) -> StageData:
    from slime_vlm.pages import PageSettings

    config, training = model.config, stage.page_training
    assert training is not None
    if config.tile_margin:
        raise ConfigError(
            f"stage '{stage.name}' trains on rendered pages, whose labels know no margins, and tile_margin is "
            f"{config.tile_margin}; set it to 0"
        )
    try:
        vocabulary = page_vocabulary(config.projector_vocabulary or [])
    except ConfigError as error:
        raise ConfigError(f"stage '{stage.name}' trains on rendered pages, but {error}") from error
    settings = PageSettings.from_dict(
        {"view_size": config.view_size, "max_tiles": config.max_tiles, **(stage.data.pages or {})}
    )
    first_seed = (recipe.seed * 100 + stage.seed) * SEEDS_PER_STAGE
    pages = PageDataset(settings, (stage.steps or 0) * stage.batch_size, first_seed)
    shape = PageShape(
        view_size=config.view_size,
        max_tiles=config.max_tiles,
        local_side=config.token_layout.tile_side or math.isqrt(config.num_local_queries),
        patch_side=config.feature_side,
    )
    if training.objective == "read":
        reading = ReadObjective(model, len(vocabulary.characters), stage.trains)
        return StageData(pages, ReadCollator(processor, shape, vocabulary, training.tiles_read), reading)
    if training.objective == "symbolic_tokens":
        rows = training.symbolic_tokens
        shape = replace(shape, local_side=rows.local_side or shape.local_side)
        collator = SymbolicTokensCollator(processor, shape, vocabulary, training.questions, rows, stage.seed)
        symbolic = SymbolicTokensObjective(
            model,
            vocabulary.sizes[-2],
            training.selector_loss,
            training.context_loss,
            training.pointing_loss,
            training.copying_loss,
        )
        return StageData(pages, collator, symbolic)
    label_global = training.global_reading_loss > 0
    answering = AnswerObjective(
        model,
        training.selector_loss,
        training.reading_loss,
        training.pointing_loss,
        training.copying_loss,
        training.global_reading_loss,
    )
    return StageData(
        pages,
        AnswerCollator(processor, shape, vocabulary, training.questions, stage.seed, label_global),
        answering,
    )
