"""`slime train`: run the stages of a recipe one after another, each resumable at its last checkpoint."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from slime_vlm.data import MixtureOrder, RecordDataset, Share, open_source
from slime_vlm.diagnostics.bf16 import has_bf16
from slime_vlm.errors import ConfigError
from slime_vlm.model.packed_attention import use_packed_attention
from slime_vlm.quiet import quiet_while
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.distributed.deepspeed import asks_for_deepspeed, build_whole_models
from slime_vlm.training.features.precompute import open_store, store_features
from slime_vlm.training.lora import add_lora, merged, save_lora
from slime_vlm.training.models import base_of, stage_model, start_model
from slime_vlm.training.packing import EvenOrder, TokensOf
from slime_vlm.training.pages.data import AnswerCollator, PageDataset, PageShape, ReadCollator, SymbolicTokensCollator
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.pages.objectives import AnswerObjective, ReadObjective, SymbolicTokensObjective
from slime_vlm.training.planning.dry_run import Hardware, print_plan
from slime_vlm.training.planning.step_flops import training_flops
from slime_vlm.training.recipe import Recipe, Stage, load_recipe
from slime_vlm.training.records import BadRecords, RecordCollator, part_of_limits
from slime_vlm.training.reporting.progress import ProgressLines
from slime_vlm.training.reporting.stage_report import note_curves, note_end, note_start
from slime_vlm.training.reporting.throughput import Speedometer, measured_peak
from slime_vlm.training.reporting.trackers import check_trackers
from slime_vlm.training.run_folder import claim, is_finished, stage_folders, write_marker, writing
from slime_vlm.training.stage_checks import check_stage, check_start
from slime_vlm.training.stages import apply_stage, frozen_modules, trainable_table
from slime_vlm.training.trainer import (
    ClockCheckpoints,
    SlimeTrainer,
    last_complete_checkpoint,
    of_all_processes,
    on_any_process,
)

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

SEEDS_PER_STAGE = 100_000_000


def train(
    recipe_path: Path,
    out: Path | None = None,
    stages: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    hardware: Hardware | None = None,
) -> Path:
    """Run a recipe.

    Args:
        recipe_path: YAML file.
        out: folder of the run; default `runs/<name of the recipe>`.
        stages: names of the stages to run; none = all. Independent ones may run at the same time in several processes.
        resume: continue unfinished stages; finished ones are kept.
        dry_run: print the plan and stop.
        overrides: `key=value` changes of the recipe.
        hardware: what a dry run plans for; its `tflops` are also what the utilisation of a run is measured against.

    Returns:
        Folder of the last stage's model.

    Raises:
        ConfigError: the recipe or the arguments do not fit, or `out` holds a run of another recipe.
        DataError: the data cannot be read.
        CheckpointError: `out` cannot be written.
        KeyboardInterrupt: the run was interrupted; a checkpoint is written.
    """
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
    for stage in chosen:
        check_stage(recipe, stage)
    if dry_run:
        with quiet_while():
            print_plan(recipe, chosen, hardware)
        return Path()
    check_trackers(recipe.trackers)
    # Of several processes one speaks.
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    out = out or Path("runs") / recipe.name
    final = out / chosen[-1].name / "model"
    if resume and all(is_finished(out / stage.name / "model") for stage in chosen):
        console.print(f"nothing to do: the run in {out} is finished, its model is {final}", soft_wrap=True)
        return final
    for stage in chosen:
        if not is_finished(out / stage.name / "model"):
            check_start(stage, _processes())
    claim(out, recipe, [stage.name for stage in chosen])
    for stage in chosen:
        with quiet_while(), writing(out):
            _run_stage(recipe, stage, out, resume, console, recipe_path, hardware or Hardware())
    console.print(f'finished: try it with slime ask IMAGE -q "..." --model {final}', soft_wrap=True)
    return final


def _run_stage(
    recipe: Recipe, stage: Stage, out: Path, resume: bool, console: Console, recipe_path: Path, hardware: Hardware
) -> None:
    folder, model_folder = out / stage.name, out / stage.name / "model"
    if is_finished(model_folder):
        if not resume:
            raise ConfigError(f"{model_folder} is a finished stage: use --resume to keep it, or another --out")
        console.print(f"stage {stage.name}: finished before, kept")
        return
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is not None and not resume:
        raise ConfigError(f"{folder} holds checkpoints of an unfinished run: use --resume to go on, or another --out")

    before = stage_folders(recipe, stage, out)
    for path in before:
        if not is_finished(path):
            needed = path.parent.name
            raise ConfigError(
                f"stage '{stage.name}' starts from {path}, which is not there: run stage '{needed}' first"
            )
    set_seed(recipe.seed + stage.seed)
    quantization = "4bit" if stage.lora and stage.lora.base_weights == "4bit" else None
    build_whole_models()
    if before:
        model, processor = stage_model(before, stage.config, quantization)
    else:
        model, processor = start_model(recipe, stage.config, quantization)
    if stage.packing:
        use_packed_attention(model.model.language_model)
    elif not torch.cuda.is_available() or not stage.data.parts:
        # Plain attention shows its weights, and trains 1.5 times faster than the fused one in bfloat16 on a CPU
        # (docs/log.md). The masks of pages hold the lowest float32; the fused one rounds it to minus infinity in
        # bfloat16, and gives NaN for padding.
        model.model.language_model.set_attn_implementation("eager")
    if stage.data.parts:
        model.config.max_sequence_length = stage.max_sequence_length
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if stage.lora is not None:
        add_lora(model, stage.lora)
    rates = apply_stage(model, stage)
    console.print(trainable_table(model, stage))
    if stage.bf16 and not _in_bf16(stage):
        console.print("this machine has no bfloat16 instructions: computing in float32")

    dataset, collator, objective = _data_and_loss(recipe, stage, model, processor)
    bad_records = None
    if isinstance(collator, RecordCollator):
        # Every process reports its own.
        say = Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print
        file = folder / f"bad_records_{os.environ.get('RANK', '0')}.jsonl"
        bad_records = BadRecords(collator.dataset, collator.limits, say, file)
    # Before the arguments, which turn ZeRO-3 on for every model that is built after them.
    flops = training_flops(model)
    arguments = _arguments(recipe, stage, folder, dataset)
    if isinstance(collator, RecordCollator) and stage.cache_features is not None:
        store = open_store(model, processor, stage, arguments.bf16)
        options = {"device": arguments.device, "bf16": arguments.bf16, "workers": stage.data.workers}
        store_features(model, collator, dataset, store, **options, console=console)
        collator.dataset.open_image = store.open_image
    if arguments.should_save:
        note_start(folder, recipe_path, stage, dataset, arguments.world_size)
    speed = Speedometer(model, flops, _peak(arguments, hardware, console))
    progress = ProgressLines(console, stage.name)
    trainer = SlimeTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        objective=objective,
        rates=rates,
        frozen=frozen_modules(model, stage),
        bad_records=bad_records,
        pack=stage.packing,
        speed=speed,
        callbacks=[ClockCheckpoints(stage.save_minutes), progress],
    )
    trainer.remove_callback(PrinterCallback)
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and not trainer.is_fsdp_enabled:
        console.print("Accelerate shards models over accelerators only: here every process keeps a whole one")
    if checkpoint is not None:
        done = Path(checkpoint).name.rpartition("-")[2]
        console.print(f"stage {stage.name}: going on after step {done} of {trainer.args.max_steps}")
    with _finish_step_on_interrupt(trainer) as asked:
        with progress.shown():
            trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.args.should_save:
            note_curves(folder, f"{recipe.name}, stage {stage.name}", trainer.state.log_history, console)
        if asked and trainer.state.global_step < trainer.state.max_steps:
            step, steps = trainer.state.global_step, trainer.state.max_steps
            console.print(f"stopped after step {step} of {steps} of stage {stage.name}; go on with --resume")
            raise KeyboardInterrupt
        if bad_records is not None:
            # Not only those of the process that speaks.
            left_out = set().union(*of_all_processes(bad_records.seen))
            if left_out:
                files = folder / "bad_records_*.jsonl"
                console.print(f"{len(left_out)} records were left out, see {files}", soft_wrap=True)
        if objective is not None:
            objective.finish(model)
        _save_stage(model, processor, recipe, stage, trainer, before, model_folder)
        if asked:
            console.print(f"stopped at the end of stage {stage.name}; go on with --resume")
            raise KeyboardInterrupt


def _data_and_loss(
    recipe: Recipe, stage: Stage, model: SlimeForConditionalGeneration, processor: SlimeProcessor
) -> tuple[Any, Any, Any]:
    """Dataset, collator and objective of a stage; an objective of None is the model's own loss."""
    if stage.data.parts:
        parts = stage.data.parts
        records = RecordDataset(*(open_source(part.path, part.images, part.config, part.split) for part in parts))
        style = "plain" if stage.data.conversation == "plain" else None
        limit, views = stage.max_sequence_length, model.config.views
        mixture = records, [Share(part.passes, part.weight) for part in parts], recipe.seed + stage.seed
        order = MixtureOrder(*mixture)
        if stage.packing:
            tokens_of = TokensOf(records, model.config, limit)
            order = EvenOrder(*mixture, tokens_of, stage.batch_size, stage.samples_a_pass(_processes()))
        order.count = stage.batch_size * (
            stage.steps or math.ceil(stage.epochs * order.epoch_length / stage.batch_size)
        )
        limits = part_of_limits(records.limits(stage.data.max_bad), _processes(), order.passes())
        # The collator opens them, since it may have to open the next one instead.
        return order, RecordCollator(records, processor, style, stage.data.labels, limit, limits, views), None

    from slime_vlm.pages import PageSettings

    config = model.config
    try:
        vocabulary = page_vocabulary(config.projector_vocabulary or [])
    except ConfigError as error:
        raise ConfigError(f"stage '{stage.name}' trains on rendered pages, but {error}") from error
    values = {"view_size": config.view_size, "max_tiles": config.max_tiles, **(stage.data.pages or {})}
    first_seed = (recipe.seed * 100 + stage.seed) * SEEDS_PER_STAGE
    pages = PageDataset(PageSettings.from_dict(values), (stage.steps or 0) * stage.batch_size, first_seed)
    shape = PageShape(
        view_size=config.view_size,
        max_tiles=config.max_tiles,
        local_side=config.token_layout.tile_side or math.isqrt(config.num_local_queries),
        patch_side=config.feature_side,
    )
    training = stage.page_training
    assert training is not None
    if training.objective == "read":
        reads = ReadObjective(model, len(vocabulary.characters), stage.trains)
        return pages, ReadCollator(processor, shape, vocabulary, training.tiles_read), reads
    if training.objective == "symbolic_tokens":
        settings = training.symbolic_tokens
        shape = replace(shape, local_side=settings.local_side or shape.local_side)
        rows = SymbolicTokensCollator(processor, shape, vocabulary, training.questions, settings, stage.seed)
        return (
            pages,
            rows,
            SymbolicTokensObjective(
                model,
                vocabulary.sizes[-2],
                training.selector_loss,
                training.context_loss,
                training.pointing_loss,
                training.copying_loss,
            ),
        )
    label_global = training.global_reading_loss > 0
    answers = AnswerCollator(processor, shape, vocabulary, training.questions, stage.seed, label_global)
    losses = AnswerObjective(
        model,
        training.selector_loss,
        training.reading_loss,
        training.pointing_loss,
        training.copying_loss,
        training.global_reading_loss,
    )
    return pages, answers, losses


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _arguments(recipe: Recipe, stage: Stage, folder: Path, dataset: Any) -> TrainingArguments:
    processes = _processes()
    micro = stage.samples_a_pass(processes)
    steps = len(dataset) // stage.batch_size
    on_cpu = not torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=stage.batch_size // (micro * processes),
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=math.ceil(stage.warmup_ratio * steps),
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        max_grad_norm=stage.max_grad_norm,
        bf16=_in_bf16(stage),
        # Accelerate leaves DeepSpeed out where it is told to use CPUs; told nothing it finds them, but no backend.
        use_cpu=on_cpu and not asks_for_deepspeed(),
        ddp_backend="gloo" if on_cpu and asks_for_deepspeed() else None,
        # A gate that stands on one adapter gets no gradient in stages 1a and 1b.
        ddp_find_unused_parameters=True,
        # Pages are drawn anew at every index, and the mixture says which record comes when.
        train_sampling_strategy="sequential",
        dataloader_num_workers=stage.data.workers,
        seed=recipe.seed + stage.seed,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=max(1, min(50, steps // 20)),
        report_to=recipe.trackers,
        run_name=f"{recipe.name}-{stage.name}",
        project=recipe.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _in_bf16(stage: Stage) -> bool:
    """Whether a stage computes in bfloat16; weights in it leave no choice, however slow that is."""
    return stage.bf16 and (has_bf16() or (stage.lora is not None and stage.lora.base_weights == "bfloat16"))


def _peak(arguments: TrainingArguments, hardware: Hardware, console: Console) -> float:
    """Operations a second that one process could do at most: told, or measured."""
    if hardware.tflops is not None:
        console.print(f"utilisation is measured against {hardware.tflops:g} TFLOP/s a process, as given by --tflops")
        return hardware.tflops * 1e12
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    peak = measured_peak(arguments.device, dtype)
    console.print(
        f"utilisation is measured against {peak / 1e12:.3g} TFLOP/s a process, a matrix product in "
        f"{str(dtype).removeprefix('torch.')} on this machine",
        soft_wrap=True,
    )
    return peak


def _save_stage(
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    recipe: Recipe,
    stage: Stage,
    trainer: SlimeTrainer,
    before: list[Path],
    folder: Path,
) -> None:
    """Write the stage's model with the recipe's own config, then the marker that it is finished.

    Adapters that are kept apart are written alone, over the model before the stage.
    """
    # Gathers the parts of a model that is spread over processes, so all of them take part.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    assert trainer.speed is not None
    totals = trainer.speed.totals_now(trainer.accelerator.gather, trainer.args.device)
    if trainer.args.should_save:
        base = recipe_config(recipe, {})
        for key in [*stage.config, "max_sequence_length"]:
            setattr(model.config, key, getattr(base, key))
        processor.follow(model.config)
        if stage.lora is not None and not stage.lora.merge:
            save_lora(folder, model, weights, set(trainer.rates), stage.lora, base_of(recipe, before))
        else:
            whole = weights if stage.lora is None else merged(weights, stage.lora)
            model.save_pretrained(folder, state_dict=whole)
        processor.save_pretrained(folder)
        history, steps = trainer.state.log_history, trainer.state.global_step
        record = note_end(recipe, stage, folder.parent, steps, history, totals)
        write_marker(folder, record)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def _finish_step_on_interrupt(trainer: SlimeTrainer) -> Iterator[list[int]]:
    """Turn the first Ctrl-C (or SIGTERM) into: finish this step, write a checkpoint, stop; a second one stops at once.

    Yields:
        Signals that came.
    """
    asked: list[int] = []

    class Stopper(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if on_any_process(bool(asked)):
                asked[:] = asked or [signal.SIGINT]
                control.should_save = control.should_training_stop = True

    def handler(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    trainer.add_callback(Stopper())
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread hears signals.
        yield asked
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
