"""`slime train`: run the stages of a recipe one after another, each resumable at its last checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainingArguments, set_seed

from slime_vlm.data import MixtureOrder
from slime_vlm.diagnostics.cpu_features import has_bf16
from slime_vlm.errors import CheckpointError, ConfigError, DataError
from slime_vlm.model.packed_attention import use_packed_attention
from slime_vlm.quiet import quiet_while
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.checkpoint_manifest import complete_checkpoints, newest_checkpoint, set_aside
from slime_vlm.training.data_changes import compare_data
from slime_vlm.training.distributed.deepspeed import asks_for_deepspeed, build_whole_models
from slime_vlm.training.features.precompute import open_store, store_features
from slime_vlm.training.interrupts import finish_step_on_interrupt
from slime_vlm.training.lora import add_lora, merged, save_lora
from slime_vlm.training.models import base_of, stage_model, start_model
from slime_vlm.training.planning.dry_run import FEW_STEPS, Hardware, few_steps, print_plan
from slime_vlm.training.planning.step_flops import training_flops
from slime_vlm.training.recipe import Recipe, Stage, load_recipe, with_image_folder
from slime_vlm.training.records import BadRecords, RecordCollator
from slime_vlm.training.reporting.progress import ProgressLines
from slime_vlm.training.reporting.stage_report import note_curves, note_end, note_start
from slime_vlm.training.reporting.throughput import Speedometer, measured_peak
from slime_vlm.training.reporting.trackers import check_trackers
from slime_vlm.training.run_folder import (
    claim,
    damage_of_model,
    is_finished,
    lock_file,
    stage_folders,
    write_marker,
    writing,
)
from slime_vlm.training.run_lock import locked
from slime_vlm.training.stage_checks import check_stage, check_start
from slime_vlm.training.stage_data import StageData, num_processes, stage_data
from slime_vlm.training.stages import apply_stage, frozen_modules, parts_by_rate, trainable_table
from slime_vlm.training.trainer import ClockCheckpoints, SlimeTrainer, of_all_processes

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor


@dataclass(frozen=True)
class _Run:
    """What all stages of a run share; the arguments of `train`, resolved."""

    recipe: Recipe
    recipe_path: Path
    out: Path
    chosen: list[str]
    """Names of the stages to run."""
    resume: bool
    damaged: dict[str, str]
    """Finished stages to make again by name, with what is wrong with their models."""
    accept_data: bool
    hardware: Hardware
    console: Console
    first: bool
    """Whether this is the first of several processes, which alone prints, and sets aside what is damaged."""


def train(
    recipe_path: Path,
    out: Path | None = None,
    stages: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    hardware: Hardware | None = None,
    images: Path | None = None,
    accept_data: bool = False,
) -> Path:
    """Run a recipe.

    Args:
        recipe_path: YAML file.
        out: Folder of the run; default `runs/<name of the recipe>`.
        stages: Names of the stages to run; none = all. Stages that do not build on one another may run at the same time
            in several processes.
        resume: Continue unfinished stages and keep finished ones.
        dry_run: Print the plan and stop.
        overrides: `key=value` changes of the recipe.
        hardware: What a dry run plans for. A run measures its utilisation against its `tflops`.
        images: Folder or archive that the image paths of all records are relative to, in place of the recipe's.
        accept_data: Continue an unfinished stage though its records or images changed.

    Returns:
        Folder of the last stage's model.

    Raises:
        ConfigError: The recipe or the arguments are wrong, `out` holds a run of another recipe, or another run is at
            work on a stage in it.
        DataError: The data cannot be read, or changed since the stage began.
        CheckpointError: `out` cannot be written, or a stage starts from a damaged model.
        KeyboardInterrupt: The run was interrupted; a checkpoint is written.
    """
    recipe = load_recipe(recipe_path, _pairs(overrides))
    names = [stage.name for stage in recipe.stages]
    for name in stages:
        if name not in names:
            raise ConfigError(f"no stage '{name}' in {recipe_path}: it has {', '.join(names)}")
    if images is not None:
        recipe = with_image_folder(recipe, stages or names, str(images))
    chosen = [stage for stage in recipe.stages if not stages or stage.name in stages]
    for stage in chosen:
        check_stage(recipe, stage)
    if dry_run:
        with quiet_while():
            print_plan(recipe, chosen, hardware)
        return Path()
    check_trackers(recipe.trackers)
    first = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not first)
    out = out or Path("runs") / recipe.name
    final = out / chosen[-1].name / "model"
    finished = {stage.name: out / stage.name / "model" for stage in chosen if is_finished(out / stage.name / "model")}
    # Every process looks for itself, as it is not joined to the others yet. Nothing is renamed before they are joined.
    found = {name: damage_of_model(folder) for name, folder in finished.items()} if resume else {}
    damaged = {name: damage for name, damage in found.items() if damage is not None}
    if resume and len(finished) == len(chosen) and not damaged:
        console.print(f"nothing to do: the run in {out} is finished, its model is {final}", soft_wrap=True)
        return final
    for stage in chosen:
        if stage.name not in finished or stage.name in damaged:
            check_start(stage, num_processes())
    if resume and not out.is_dir():
        console.print(f"nothing to resume in {out}: the run starts from the beginning", soft_wrap=True)
    names = [stage.name for stage in chosen]
    claim(out, recipe, names)
    run = _Run(recipe, recipe_path, out, names, resume, damaged, accept_data, hardware or Hardware(), console, first)
    for stage in chosen:
        with quiet_while(), writing(out), _alone(run, stage):
            _run_stage(run, stage)
    console.print(f'finished: try it with slime ask IMAGE -q "..." --model {final}', soft_wrap=True)
    return final


def _pairs(overrides: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: expected KEY=VALUE, such as stages.3.steps=100")
        pairs[key] = value
    return pairs


def _alone(run: _Run, stage: Stage) -> AbstractContextManager[None]:
    """Return the lock of a stage, which the first process holds for all of them.

    The whole run has none, since independent stages of one run may train at the same time.
    """
    return locked(lock_file(run.out, stage.name), partial(_report, run, stage)) if run.first else nullcontext()


def _report(run: _Run, stage: Stage, line: str) -> None:
    run.console.print(f"stage {stage.name}: {line}", soft_wrap=True, markup=False, highlight=False)


def _run_stage(run: _Run, stage: Stage) -> None:
    """Run one stage: find where it starts, build model, data and trainer, train, write the result."""
    folder = run.out / stage.name
    if is_finished(folder / "model") and stage.name not in run.damaged:
        if not run.resume:
            raise ConfigError(f"{folder / 'model'} is a finished stage: use --resume to keep it, or another --out")
        run.console.print(f"stage {stage.name}: already finished, kept")
        return
    if complete_checkpoints(folder) and not run.resume:
        raise ConfigError(
            f"{folder} holds checkpoints of an unfinished run: use --resume to continue it, or another --out"
        )
    before = _models_before(run, stage)

    model, processor = _build_model(run, stage, before)
    rates = apply_stage(model, stage)
    run.console.print(trainable_table(model, stage))
    if stage.bf16 and not _in_bf16(stage):
        run.console.print("this machine has no bfloat16 instructions: computing in float32")
    data = stage_data(run.recipe, stage, model, processor)
    # Before the arguments, which turn ZeRO-3 on for every model that is built after them.
    flops = training_flops(model)
    # They join the processes, which agree on the checkpoint from here on.
    arguments = _arguments(run.recipe, stage, folder, data.dataset)
    checkpoint = _checkpoint(run, stage)
    _check_data(run, stage, data.dataset, resumed=checkpoint is not None)
    _use_stored_features(run, stage, model, processor, data, arguments)
    if arguments.should_save:
        note_start(folder, run.recipe_path, stage, data.dataset, arguments.world_size)
    bad_records = _bad_records(data, folder)
    progress = ProgressLines(run.console, stage.name, parts_by_rate(stage))
    trainer = SlimeTrainer(
        model=model,
        args=arguments,
        train_dataset=data.dataset,
        data_collator=data.collator,
        objective=data.objective,
        rates=rates,
        frozen=frozen_modules(model, stage),
        bad_records=bad_records,
        pack=stage.packing,
        speed=Speedometer(model, flops, _peak(arguments, run.hardware, run.console)),
        accept_data=run.accept_data,
        callbacks=[ClockCheckpoints(stage.save_minutes), progress],
    )
    trainer.remove_callback(PrinterCallback)
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and not trainer.is_fsdp_enabled:
        run.console.print("Accelerate shards models over accelerators only: here every process keeps a whole one")
    if checkpoint is not None:
        done = checkpoint.name.rpartition("-")[2]
        run.console.print(f"stage {stage.name}: resuming after step {done} of {trainer.args.max_steps}")

    with finish_step_on_interrupt(trainer) as interrupts:
        with progress.shown():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.args.should_save:
            note_curves(folder, f"{run.recipe.name}, stage {stage.name}", trainer.state.log_history, run.console)
        step, steps = trainer.state.global_step, trainer.state.max_steps
        if interrupts and step < steps:
            run.console.print(f"stopped after step {step} of {steps} of stage {stage.name}; continue with --resume")
            raise KeyboardInterrupt
        _report_bad_records(run, bad_records, folder)
        if steps < FEW_STEPS:
            run.console.print(few_steps(stage, steps), soft_wrap=True)
        if data.objective is not None:
            data.objective.finish(model)
        _save_stage(run, stage, model, processor, trainer, before)
        if interrupts:
            run.console.print(f"stopped at the end of stage {stage.name}; continue with --resume")
            raise KeyboardInterrupt


def _models_before(run: _Run, stage: Stage) -> list[Path]:
    """Return the finished model folders that a stage starts from; empty for the recipe's model."""
    before = stage_folders(run.recipe, stage, run.out)
    for path in before:
        if not is_finished(path):
            raise ConfigError(
                f"stage '{stage.name}' starts from {path}, which does not exist: run stage '{path.parent.name}' first"
            )
        # A chosen stage was checked already, or has just been written.
        damage = None if path.parent.name in run.chosen else damage_of_model(path)
        if damage is not None:
            raise CheckpointError(
                f"stage '{stage.name}' starts from {path}, which is damaged ({damage}): make it again with --resume "
                f"--stage {path.parent.name}"
            )
    return before


def _checkpoint(run: _Run, stage: Stage) -> Path | None:
    """Return the newest checkpoint of a stage that is not damaged. The first process looks, the others follow it."""
    folder, report = run.out / stage.name, partial(_report, run, stage)
    found = None
    if run.first:
        begun = folder.is_dir()
        if stage.name in run.damaged:
            new = set_aside(folder / "model")
            report(f"its model is damaged ({run.damaged[stage.name]}), set aside as {new.name} and made again")
        found = newest_checkpoint(folder, report)
        if found is None and run.resume and begun:
            report("no complete checkpoint, starting over")
    return of_all_processes(found)[0]


def _check_data(run: _Run, stage: Stage, dataset: Any, resumed: bool) -> None:
    """Refuse to continue with other data than a stage began with. The first process looks, the others follow it."""
    # Pages are drawn from numbers of the recipe, which is compared already.
    if not isinstance(dataset, MixtureOrder):
        return
    folder = run.out / stage.name
    found = compare_data(folder, dataset.dataset, resumed, run.accept_data) if run.first else []
    changes = of_all_processes(found)[0]
    what = f"the data changed since the stage began: {'; '.join(changes)}"
    if changes and not run.accept_data:
        raise DataError(
            f"stage '{stage.name}': {what}. Restore them, start a new run with another --out, or use --accept-data to "
            "continue with the data as they are"
        )
    if changes:
        _report(run, stage, f"{what}; continuing with them")


def _build_model(run: _Run, stage: Stage, before: list[Path]) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Build the model that a stage trains, with its attention, its limits and its low-rank adapters."""
    set_seed(run.recipe.seed + stage.seed)
    quantization = "4bit" if stage.lora and stage.lora.base_weights == "4bit" else None
    build_whole_models()
    if before:
        model, processor = stage_model(before, stage.config, quantization)
    else:
        model, processor = start_model(run.recipe, stage.config, quantization)
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
    return model, processor


def _use_stored_features(
    run: _Run,
    stage: Stage,
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    data: StageData,
    arguments: TrainingArguments,
) -> None:
    """Store the features of a frozen vision encoder, and let the collator open them in place of images."""
    collator = data.collator
    if stage.cache_features is None or not isinstance(collator, RecordCollator):
        return
    store = open_store(model, processor, stage, arguments.bf16)
    options = {"device": arguments.device, "bf16": arguments.bf16, "workers": stage.data.workers}
    store_features(model, collator, data.dataset, store, **options, console=run.console)
    collator.dataset.open_image = store.open_image


def _bad_records(data: StageData, folder: Path) -> BadRecords | None:
    """Return the count of unusable records; None for a stage without records."""
    if not isinstance(data.collator, RecordCollator):
        return None
    # Every process reports the ones that it meets, so this console is not the quiet one of the run.
    report = Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print
    file = folder / f"bad_records_{os.environ.get('RANK', '0')}.jsonl"
    return BadRecords(data.collator.dataset, data.collator.limits, report, file)


def _report_bad_records(run: _Run, bad_records: BadRecords | None, folder: Path) -> None:
    """Print how many records all processes together left out."""
    if bad_records is None:
        return
    left_out = set().union(*of_all_processes(bad_records.seen))
    if left_out:
        files = folder / "bad_records_*.jsonl"
        run.console.print(f"{len(left_out)} records were left out, see {files}", soft_wrap=True)


def _arguments(recipe: Recipe, stage: Stage, folder: Path, dataset: Any) -> TrainingArguments:
    processes = num_processes()
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
        # Accelerate ignores DeepSpeed if it is told to use CPUs. Otherwise it finds them by itself, but not a backend.
        use_cpu=on_cpu and not asks_for_deepspeed(),
        ddp_backend="gloo" if on_cpu and asks_for_deepspeed() else None,
        # In stages 1a and 1b, the gate selects one adapter and gets no gradient.
        ddp_find_unused_parameters=True,
        # Datasets are in the order of the run already: pages by index, records in the order of the mixture.
        train_sampling_strategy="sequential",
        dataloader_num_workers=stage.data.workers,
        seed=recipe.seed + stage.seed,
        save_strategy="no",
        # It would go by the times of files. `ClockCheckpoints` removes old checkpoints by step.
        save_total_limit=None,
        logging_steps=max(1, min(50, steps // 20)),
        report_to=recipe.trackers,
        run_name=f"{recipe.name}-{stage.name}",
        project=recipe.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _in_bf16(stage: Stage) -> bool:
    """Return whether a stage computes in bfloat16. With weights in bfloat16 it has to, however slow that is."""
    return stage.bf16 and (has_bf16() or (stage.lora is not None and stage.lora.base_weights == "bfloat16"))


def _peak(arguments: TrainingArguments, hardware: Hardware, console: Console) -> float:
    """Return the most operations per second of one process, given by the user or measured."""
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
    run: _Run,
    stage: Stage,
    model: SlimeForConditionalGeneration,
    processor: SlimeProcessor,
    trainer: SlimeTrainer,
    before: list[Path],
) -> None:
    """Write the stage's model with the recipe's own config, then the marker that it is finished.

    Adapters that are kept apart are written alone, over the model before the stage.
    """
    folder = run.out / stage.name / "model"
    # Gathers the parts of a model that is spread over processes, so all of them take part.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    assert trainer.speed is not None
    totals = trainer.speed.totals_now(trainer.accelerator.gather, trainer.args.device)
    if trainer.args.should_save:
        own = recipe_config(run.recipe, {})
        for key in [*stage.config, "max_sequence_length"]:
            setattr(model.config, key, getattr(own, key))
        processor.follow(model.config)
        if stage.lora is not None and not stage.lora.merge:
            save_lora(folder, model, weights, set(trainer.rates), stage.lora, base_of(run.recipe, before))
        else:
            whole = weights if stage.lora is None else merged(weights, stage.lora)
            model.save_pretrained(folder, state_dict=whole)
        processor.save_pretrained(folder)
        history, steps = trainer.state.log_history, trainer.state.global_step
        record = note_end(run.recipe, stage, folder.parent, steps, history, totals)
        write_marker(folder, record)
    trainer.accelerator.wait_for_everyone()
