"""Lengths of samples for the plan of a run: measured on the data if they are on this machine, else assumed.

Nothing is downloaded, and no image is decoded: image sizes come from file headers, tiles from image sizes, and the
processor counts tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from slime_vlm.data import MixtureOrder, RecordDataset, Share, open_source
from slime_vlm.data.images import open_stored_image, stored_image_size
from slime_vlm.data.opening import is_here
from slime_vlm.data.reading import read_turns_of
from slime_vlm.errors import ConfigError, DataError, InputError, MediaError, SlimeError, one_line
from slime_vlm.model.tiling import choose_grid
from slime_vlm.training.packing import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    from slime_vlm.model.configuration_slime import SlimeConfig
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.training.recipe import Recipe, Stage

MEASURED_RECORDS = 256
"""Records of a stage that are measured."""

CONSECUTIVE_RECORDS = 32
"""Number of consecutive records among them, since Parquet files are read in large pieces."""

MEASURED_PAGES = 24
ASSUMED_TEXT = 200
"""Tokens of text in a row without data to count, about as many as in a sample with an image."""


@dataclass(frozen=True)
class Sample:
    """One sample: (rows, columns) of the tiles of its images, tokens of text, and tokens with a label."""

    grids: tuple[tuple[int, int], ...]
    text: int
    labels: int


@dataclass(frozen=True)
class Samples:
    """Some samples of a stage, and their total number.

    Attributes:
        found: The samples.
        count: Samples of the whole stage; None if unknown.
        records: Records that they are drawn from; None if unknown.
        notes: Sources of the numbers.
    """

    found: Sequence[Sample]
    count: int | None = None
    records: int | None = None
    notes: list[str] = field(default_factory=list)


def samples_of(recipe: Recipe, stage: Stage, config: SlimeConfig) -> Samples:
    """Return some samples of a stage."""
    if stage.data.pages is not None:
        return _pages(recipe, stage, config)
    missing = [part.path for part in stage.data.parts if not is_here(part.path)]
    count = stage.steps * stage.batch_size if stage.steps else None
    if not missing:
        try:
            return _records(recipe, stage, config)
        except (DataError, InputError, MediaError) as error:
            return _assumed(config, count, str(error))
    return _assumed(config, count, f"no data at {', '.join(dict.fromkeys(missing))}")


def work_of(sample: Sample, config: SlimeConfig, stage: Stage) -> dict[str, float]:
    """Return the work of a sample in the units of `step_flops.UNITS`, with as many kept tokens as top_p allows."""
    from slime_vlm.diagnostics.cost import kept_bounds

    layout = config.token_layout
    wholes, tiles = views_seen(sample, config, stage)
    views = wholes + tiles
    # Without compression, tiles are processed like global views.
    wholes, compressed = (wholes, tiles) if config.local_compression else (wholes + tiles, 0)
    gated = config.projector_type == "gated"
    both = 2 if gated and config.gate == "mixture" else 1
    alone = config.projector_type == "query_attention"
    adapted = wholes * (gated and config.gate != "mlp") + (wholes + compressed) * alone
    projected = both * wholes * config.num_global_tokens + compressed * layout.num_tile_tokens
    tokens = sample.text
    for rows, cols in sample.grids:
        local = layout.num_local_tokens(rows, cols)
        tokens += layout.num_global_tokens + layout.num_separators + kept_bounds(config, local)[1]
    pages = stage.page_training
    symbolic = pages is not None and pages.objective == "symbolic_tokens"
    if pages is not None and symbolic:
        # The content of tokens is given: no view is encoded. A share of the tokens outside of every question stays.
        side = pages.symbolic_tokens.local_side or layout.tile_side
        share = sum(pages.symbolic_tokens.distractors) / 2
        projected, adapted, compressed = 0, 0, 0
        tokens = sample.text + round(share * sum(rows * cols for rows, cols in sample.grids) * side**2)
    if pages is not None and pages.objective == "read":
        tokens = 0
    tokens = min(tokens, config.max_sequence_length or tokens)
    return {
        "views": 0.0 if stage.cache_features or symbolic else float(views),
        "adapted": float(adapted),
        "tiles": float(compressed),
        "projected": 0.0 if alone else float(projected),
        "tokens": float(tokens),
        "pairs": float(tokens**2),
        "logits": float(sample.labels if tokens else 0),
    }


def views_seen(sample: Sample, config: SlimeConfig, stage: Stage) -> tuple[int, int]:
    """Return the numbers of global views and of tiles of a sample that are encoded."""
    wholes, tiles = len(sample.grids), sum(rows * cols for rows, cols in sample.grids)
    pages = stage.page_training
    if pages is not None and pages.objective == "read":
        # The parts that the stage trains decide which views it encodes.
        of_tiles = "vision_tower" in stage.trains or "local_compressor" in stage.trains
        few = tiles if pages.tiles_read is None else min(tiles, pages.tiles_read)
        return wholes * ("global_adapter" in stage.trains), few * of_tiles
    return wholes * (config.views != "local"), tiles * (config.views != "global")


def _assumed(config: SlimeConfig, count: int | None, why: str) -> Samples:
    grid = (1, config.max_tiles)
    note = (
        f"{why}: assumed one image of {config.max_tiles} tiles and {ASSUMED_TEXT} tokens of text, half of them "
        "answers; an upper bound for most data"
    )
    return Samples([Sample((grid,), ASSUMED_TEXT, ASSUMED_TEXT // 2)], count, None, [note])


def _records(recipe: Recipe, stage: Stage, config: SlimeConfig) -> Samples:
    parts = stage.data.parts
    dataset = RecordDataset(*(open_source(part.path, part.images, part.config, part.split) for part in parts))
    order = MixtureOrder(dataset, [Share(part.passes, part.weight) for part in parts], recipe.seed + stage.seed)
    steps = stage.steps or math.ceil(stage.epochs * order.epoch_length / stage.batch_size)
    order.count = steps * stage.batch_size
    processor, note = _processor(recipe, config)
    length = min(order.count, order.epoch_length)
    starts = np.linspace(0, max(0, length - CONSECUTIVE_RECORDS), MEASURED_RECORDS // CONSECUTIVE_RECORDS).astype(int)
    chosen = np.unique(np.add.outer(starts, np.arange(min(length, CONSECUTIVE_RECORDS))))
    found: list[Sample] = []
    reasons: list[str] = []
    for position in chosen:
        try:
            found.append(_measure(dataset, order[int(position)], stage, config, processor))
        except (DataError, InputError, MediaError) as error:
            reasons.append(one_line(error))
    first = f"the first one: {reasons[0]}; slime data check names all" if reasons else ""
    if not found:
        return _assumed(config, order.count, f"none of {len(chosen)} records could be used ({first})")
    notes = [f"measured on {len(found)} of {len(dataset):,} records: image sizes from file headers; {note}"]
    if reasons:
        notes.append(f"{len(reasons)} of {len(chosen)} records could not be used ({first})")
    return Samples(found, order.count, len(dataset), notes)


def _measure(
    dataset: RecordDataset, index: int, stage: Stage, config: SlimeConfig, processor: SlimeProcessor | None
) -> Sample:
    number, position = dataset.locate(index)
    source = dataset.sources[number]
    record = source[position]
    turns, problems = read_turns_of(record)
    if not turns:
        raise DataError(f"{source.name_of(position, record.id)}: {problems[0].message}")
    grids = []
    for value in record.images:
        size = stored_image_size(value, source.images)
        if size is None:
            with open_stored_image(value, source.images) as image:
                size = image.height, image.width
        grid = choose_grid(*size, config.view_size, config.max_tiles, config.tile_margin)
        grids.append((grid.rows, grid.cols))
    if processor is None:
        lengths = [(turn.role, len(turn.text) // CHARACTERS_PER_TOKEN + 1) for turn in turns]
        answers = sum(length for role, length in lengths if role == "assistant")
        return Sample(tuple(grids), sum(length for _, length in lengths), answers)
    encoded = processor.encode_conversations(
        [turns],
        image_grids=grids,
        style="plain" if stage.data.conversation == "plain" else None,
        label_rule=stage.data.labels,
        max_length=stage.max_sequence_length,
        return_tensors=None,
    )
    ids, labels = encoded["input_ids"][0], encoded["labels"][0]
    text = sum(token != processor.image_token_id for token in ids)
    return Sample(tuple(grids), text, sum(label != -100 for label in labels))


def _processor(recipe: Recipe, config: SlimeConfig) -> tuple[SlimeProcessor | None, str]:
    """Return the processor of the run if it is on this machine, and a note on how tokens are counted."""
    import copy

    from slime_vlm.checkpoints.from_pretrained_parts import conversation_of
    from slime_vlm.checkpoints.hub import at_hand
    from slime_vlm.checkpoints.native import read_native
    from slime_vlm.checkpoints.pretrained_parts import read_tokenizer
    from slime_vlm.checkpoints.shipped import SHIPPED
    from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
    from slime_vlm.processing.processing_slime import SlimeProcessor

    source = recipe.model
    guess = (
        f"tokens of text assumed, one for {CHARACTERS_PER_TOKEN} characters, as the tokenizer is not on this machine"
    )
    config = copy.deepcopy(config)
    try:
        name = source.path or source.llm
        folder = None if name is None else SHIPPED.get(name) or at_hand(name, weights=False)
        if folder is None:
            return None, guess
        if source.path is not None:
            processor = read_native(folder)[1]
            config.image_token_id = processor.image_token_id
            return processor.follow(config), "tokens counted by its processor"
        tokenizer = read_tokenizer(str(folder))
        style, template = (source.conversation, None) if source.conversation else conversation_of(tokenizer)
        built = SlimeProcessor.from_config(config, tokenizer, style, SlimeImageProcessor(), template)
    except SlimeError:
        return None, guess
    return built, "tokens counted by its tokenizer"


def _pages(recipe: Recipe, stage: Stage, config: SlimeConfig) -> Samples:
    from slime_vlm.pages import PageSettings, characters, make_page, words
    from slime_vlm.training.pages.packed_questions import HEAD
    from slime_vlm.training.pages.tokenizer import build_page_tokenizer

    training = stage.page_training
    assert training is not None
    count = (stage.steps or 0) * stage.batch_size
    settings = {"view_size": config.view_size, "max_tiles": config.max_tiles, **(stage.data.pages or {})}
    try:
        pages = [make_page(seed, PageSettings.from_dict(settings)) for seed in range(MEASURED_PAGES)]
    except ConfigError as error:
        return _assumed(config, count, str(error))
    tokenizer: Any = build_page_tokenizer(characters(), words())
    found = []
    for number, page in enumerate(pages):
        asked = page.questions[: training.questions[number % len(training.questions)]]
        lengths = [
            tuple(len(tokenizer(text, add_special_tokens=False).input_ids) for text in (question.text, question.answer))
            for question in asked
        ]
        grid = choose_grid(page.height, page.width, config.view_size, config.max_tiles, config.tile_margin)
        # A marker follows each question, and an end token each answer.
        text = HEAD + sum(question + answer + 2 for question, answer in lengths)
        found.append(Sample(((grid.rows, grid.cols),), text, sum(answer + 1 for _, answer in lengths)))
    notes = [f"measured on {len(found)} rendered pages"]
    if training.objective == "symbolic_tokens":
        notes.append("assumed that the mean share of distractors of all local tokens stays")
    return Samples(found, count, None, notes)
