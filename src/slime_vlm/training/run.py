"""`slime train`: run the stages of a recipe one after another, each resumable at its last checkpoint."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.console import Console
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from slime_vlm.errors import ConfigError
from slime_vlm.training.models import STAGE_FILE, page_vocabulary, recipe_config, stage_model, start_model
from slime_vlm.training.objectives import AnswerObjective, OracleObjective, ReadObjective
from slime_vlm.training.page_data import AnswerCollator, OracleCollator, PageDataset, PageShape, ReadCollator
from slime_vlm.training.plan import print_plan
from slime_vlm.training.recipe import Recipe, Stage, load_recipe, recipe_dict
from slime_vlm.training.records import RecordCollator, RecordDataset
from slime_vlm.training.stages import PART_PREFIXES, apply_stage, frozen_modules, trainable_table
from slime_vlm.training.trainer import ClockCheckpoints, SlimeTrainer, last_complete_checkpoint

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.model.processing_slime import SlimeProcessor

SEEDS_PER_STAGE = 100_000_000


def train(
    recipe_path: Path,
    out: Path | None = None,
    stages: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
) -> Path:
    """Run a recipe.

    Args:
        recipe_path: YAML file.
        out: folder of the run; default `runs/<name of the recipe>`.
        stages: names of the stages to run; none = all. Independent stages may run at the same time in several processes.
        resume: continue unfinished stages; finished ones are kept.
        dry_run: print the plan and stop.
        overrides: `key=value` changes of the recipe.

    Returns:
        Folder of the last stage's model.

    Raises:
        ConfigError: the recipe or the arguments do not fit.
        DataError: the data cannot be read.
    """
    console = Console(stderr=True)
    pairs = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: expected KEY=VALUE, such as stages.3.steps=100")
        pairs[key] = value
    recipe = load_recipe(recipe_path, pairs)
    names = [stage.name for stage in recipe.stages]
    for name in stages:
        if name not in names:
            raise ConfigError(f"no stage '{name}' in {recipe_path}: it has {', '.join(names)}")
    chosen = [stage for stage in recipe.stages if not stages or stage.name in stages]
    if dry_run:
        print_plan(recipe, chosen)
        return Path()
    out = out or Path("runs") / recipe.name
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe_dict(recipe), sort_keys=False, allow_unicode=True))
    final = out
    for stage in chosen:
        final = _run_stage(recipe, stage, out, resume, console)
    return final


def stage_folders(recipe: Recipe, stage: Stage, out: Path) -> list[Path]:
    """Model folders that a stage starts from; empty for the first."""
    names = [s.name for s in recipe.stages]
    index = names.index(stage.name)
    before = stage.start if stage.start is not None else names[max(0, index - 1) : index]
    return [out / name / "model" for name in before]


def _run_stage(recipe: Recipe, stage: Stage, out: Path, resume: bool, console: Console) -> Path:
    folder, model_folder = out / stage.name, out / stage.name / "model"
    if (model_folder / STAGE_FILE).is_file():
        if not resume:
            raise ConfigError(f"{model_folder} is a finished stage: use --resume to keep it, or another --out")
        console.print(f"stage {stage.name}: finished before, kept")
        return model_folder
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is not None and not resume:
        raise ConfigError(f"{folder} holds checkpoints of an unfinished run: use --resume to go on, or another --out")

    before = stage_folders(recipe, stage, out)
    for path in before:
        if not (path / STAGE_FILE).is_file():
            raise ConfigError(f"stage '{stage.name}' starts from {path}, which is not there: run stage '{path.parent.name}' first")
    set_seed(recipe.seed + stage.seed)
    model, processor = stage_model(before, stage.config) if before else start_model(recipe, stage.config)
    if not torch.cuda.is_available():
        # Plain attention trains 1.5 times faster than the fused one in bfloat16 on a CPU (docs/log.md).
        model.model.language_model.set_attn_implementation("eager")
    rates = apply_stage(model, stage)
    console.print(trainable_table(model, stage))

    dataset, collator, objective = _data_and_loss(recipe, stage, model, processor)
    arguments = _arguments(recipe, stage, folder, dataset)
    transformers_logging.set_verbosity_error()
    trainer = SlimeTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        objective=objective,
        rates=rates,
        frozen=frozen_modules(model, stage),
        callbacks=[ClockCheckpoints(stage.save_minutes)],
    )
    with _finish_step_on_interrupt(trainer) as interrupted:
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupted():
        console.print(f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; go on with --resume")
        raise KeyboardInterrupt
    if isinstance(objective, ReadObjective):
        objective.finish(model)
    _save_stage(model, processor, recipe, stage, trainer, model_folder)
    return model_folder


def _data_and_loss(
    recipe: Recipe, stage: Stage, model: SlimeForConditionalGeneration, processor: SlimeProcessor
) -> tuple[Any, Any, Any]:
    """Dataset, collator and objective of a stage; an objective of None is the model's own loss."""
    if stage.data.pages is None:
        assert stage.data.records is not None
        dataset = RecordDataset(stage.data.records, stage.data.images)
        style = "plain" if stage.data.conversation == "plain" else None
        return dataset, RecordCollator(processor, style, stage.max_sequence_length), None

    from slime_vlm.pages import PageSettings

    config = model.config
    settings = {"view_size": config.view_size, "max_tiles": config.max_tiles, **stage.data.pages}
    first_seed = (recipe.seed * 100 + stage.seed) * SEEDS_PER_STAGE
    pages = PageDataset(PageSettings.from_dict(settings), (stage.steps or 0) * stage.batch_size, first_seed)
    shape = PageShape(
        view_size=config.view_size,
        max_tiles=config.max_tiles,
        local_side=config.token_layout.tile_side or math.isqrt(config.num_local_queries),
        patch_side=config.feature_side,
    )
    vocabulary = page_vocabulary()
    if config.projector_vocabulary != vocabulary.sizes:
        raise ConfigError(
            f"stage '{stage.name}' trains on rendered pages, expected a model with projector_vocabulary {vocabulary.sizes}, "
            f"found {config.projector_vocabulary}: set 'model.config.projector_vocabulary: pages'"
        )
    if stage.objective == "read":
        reads = ReadObjective(model, len(vocabulary.characters), stage.trains)
        return pages, ReadCollator(processor, shape, vocabulary), reads
    if stage.objective == "oracle":
        return pages, OracleCollator(processor, shape, vocabulary, stage.seed), OracleObjective(stage.selector_loss)
    return pages, AnswerCollator(processor, shape, vocabulary), AnswerObjective(stage.selector_loss, stage.reading_loss)


def _arguments(recipe: Recipe, stage: Stage, folder: Path, dataset: Any) -> TrainingArguments:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = stage.micro_batch_size or max(1, stage.batch_size // processes)
    if stage.batch_size % (micro * processes):
        raise ConfigError(
            f"stage '{stage.name}': batch_size {stage.batch_size} is no multiple of micro_batch_size {micro} x {processes} processes"
        )
    accumulation = stage.batch_size // (micro * processes)
    steps = stage.steps or math.ceil(stage.epochs * math.ceil(len(dataset) / stage.batch_size))
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=math.ceil(stage.warmup_ratio * steps),
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        max_grad_norm=stage.max_grad_norm,
        bf16=stage.bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=stage.gradient_checkpointing,
        # Pages are drawn anew at every index; records are shuffled.
        train_sampling_strategy="random" if stage.data.records else "sequential",
        seed=recipe.seed + stage.seed,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=max(1, min(50, steps // 20)),
        report_to=["tensorboard"] if recipe.tensorboard else [],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _save_stage(
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    recipe: Recipe,
    stage: Stage,
    trainer: SlimeTrainer,
    folder: Path,
) -> None:
    """Write the stage's model with the recipe's own config, then the marker that it is finished."""
    base = recipe_config(recipe, {})
    for key in stage.config:
        setattr(model.config, key, getattr(base, key))
    processor.follow(model.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    record = {
        "stage": stage.name,
        "trained": [prefix for part in stage.trains for prefix in PART_PREFIXES[part]],
        "steps": trainer.state.global_step,
        "last": history[-1] if history else {},
    }
    (folder / STAGE_FILE).write_text(json.dumps(record, indent=1))


@contextmanager
def _finish_step_on_interrupt(trainer: SlimeTrainer) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into: finish this step, write a checkpoint, stop."""
    asked: list[int] = []

    class Stopper(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if asked:
                control.should_save = control.should_training_stop = True

    def handler(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    trainer.add_callback(Stopper())
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked) and trainer.state.global_step < trainer.state.max_steps
    finally:
        for number, old in before.items():
            signal.signal(number, old)
