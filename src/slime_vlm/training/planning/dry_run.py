"""The plan of a run: resolved recipe, trained parts, memory, tokens and hours (`slime train --dry-run`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from slime_vlm.errors import ConfigError
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.text_loss import TOKENS_PER_CHUNK
from slime_vlm.training.architecture import recipe_config
from slime_vlm.training.lora import add_lora, bytes_saved
from slime_vlm.training.planning.sample_lengths import ASSUMED_TEXT, Samples, samples_of, views_seen, work_of
from slime_vlm.training.planning.step_flops import UNITS, flops_of, training_flops
from slime_vlm.training.recipe import Recipe, Stage, recipe_dict
from slime_vlm.training.stages import apply_stage, trainable_table

GIB = 2**30

FEW_STEPS = 10
"""Fewer optimizer steps than this deserve a warning."""

_PART_OF_UNIT = {
    "views": "vision encoder",
    "adapted": "global adapter",
    "tiles": "local compressor",
    "projected": "projector",
    "tokens": "language model",
    "pairs": "language model",
    "logits": "head",
}


@dataclass(frozen=True)
class Hardware:
    """The hardware that a run is planned for.

    Attributes:
        gpus: Processes, one per GPU.
        tflops: Peak of one GPU in 10^12 operations per second; None if unknown.
        utilisation: Expected share of the peak for the model's own operations.
    """

    gpus: int = 1
    tflops: float | None = None
    utilisation: float = 0.4

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.gpus < 1:
            raise ConfigError(f"--gpus is {self.gpus}, expected at least 1")
        if self.tflops is not None and not 0 < self.tflops < math.inf:
            raise ConfigError(f"--tflops is {self.tflops:g}, expected more than 0, such as 400 for one GPU")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--utilisation is {self.utilisation:g}, expected a share above 0 and at most 1")

    def seconds_of(self, flops: float) -> float | None:
        """Return the seconds that all processes together take for some operations; None without `tflops`."""
        return None if self.tflops is None else flops / (self.gpus * self.tflops * 1e12 * self.utilisation)


def sequence_length(config: SlimeConfig, limit: int | None) -> int:
    """Return the longest sequence of a stage: an image of the most tiles, no token dropped, with some text."""
    length = config.token_layout.num_image_tokens(1, config.max_tiles) + ASSUMED_TEXT
    return min(length, limit) if limit else length


def memory_estimate(
    model: SlimeForConditionalGeneration,
    stage: Stage,
    weight_bytes: int = 4,
    processes: int = 1,
    sharded: bool = False,
) -> dict[str, float]:
    """Estimate the bytes that one process needs in a stage, by purpose. This is a plan, not a measurement.

    A weight takes `weight_bytes`, or the bytes of `lora.base_weights` beside adapters. A trainable weight takes 4 more
    for the gradient, 8 for the moments of AdamW and, with bf16, 2 for the copy that a step computes with. Activations
    take 34 hidden widths of 2 bytes per token and layer (about what a Llama layer keeps for its backward pass). With
    gradient checkpointing they take one width, and one layer in full. Logits of text are computed in chunks, twice in
    float32 (`model/text_loss.py`). The activations of a vision encoder that trains are not counted.

    With several processes, DDP keeps everything on each of them, and the gradients a second time in the buffers that it
    sends. FSDP gives each process its share. It gathers two layers at a time (the next one is fetched meanwhile), and
    everything outside of the language model's layers for the whole step.

    Args:
        model: The model after `apply_stage`; the meta device is enough.
        stage: Gives batch size, sequence limit and gradient checkpointing.
        weight_bytes: Bytes of one weight.
        processes: Number of processes, one per GPU.
        sharded: Whether weights, gradients and optimizer are sharded over the processes (FSDP) or not (DDP).
    """
    text: Any = model.config.text_config
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    micro = stage.samples_a_pass(processes)
    tokens = sequence_length(model.config, stage.max_sequence_length) * micro
    per_layer = 34 * text.hidden_size * 2
    layers = text.num_hidden_layers
    kept = layers * text.hidden_size * 2 + per_layer if stage.gradient_checkpointing else layers * per_layer
    share = processes if sharded else 1
    saved = bytes_saved(model, stage.lora) if stage.lora else 0.0
    parts = {
        "weights": (total * weight_bytes - saved) / share,
        "gradients": trainable * 4 / share,
        "optimizer": trainable * 8 / share,
        "bf16 copies": trainable * 2 / share if stage.bf16 else 0.0,
        "activations": float(tokens * kept),
        "logits": float(min(ASSUMED_TEXT * micro, TOKENS_PER_CHUNK) * text.vocab_size * 4 * 2),
    }
    if processes > 1 and sharded:
        sizes = _layer_sizes(model)
        outside = total - sum(sizes)
        parts["gathered"] = float(2 * max(sizes) + outside) * (2 if stage.bf16 else 4)
    elif processes > 1:
        parts["sent gradients"] = trainable * 4.0
    return parts


def _layer_sizes(model: SlimeForConditionalGeneration) -> list[int]:
    inner: Any = model.model.language_model
    layers = getattr(inner, "layers", None) or [inner]
    return [sum(p.numel() for p in layer.parameters()) for layer in layers]


def print_plan(recipe: Recipe, stages: list[Stage], hardware: Hardware | None = None) -> None:
    """Print the resolved recipe, and for every stage trained parts, memory, tokens and hours. Nothing is downloaded.

    Args:
        recipe: The recipe.
        stages: The stages to plan.
        hardware: The hardware to plan for.
    """
    hardware = hardware or Hardware()
    console = Console()
    resolved = yaml.safe_dump(recipe_dict(recipe), sort_keys=False, allow_unicode=True)
    console.print(resolved, markup=False, highlight=False, soft_wrap=True)
    hours: list[float | None] = []
    for stage in stages:
        config = recipe_config(recipe, stage.config)
        config.max_sequence_length = stage.max_sequence_length if stage.data.parts else None
        with torch.device("meta"):
            model = SlimeForConditionalGeneration(config)
            if stage.lora is not None:
                add_lora(model, stage.lora)
        apply_stage(model, stage)
        console.print(trainable_table(model, stage))
        console.print(memory_table(model, stage, hardware.gpus))
        samples = samples_of(recipe, stage, config)
        step = plan_step(model, stage, samples)
        console.print(step_table(stage, step, hardware))
        hours.append(step.hours(hardware))
        notes = [*samples.notes, *_cache_notes(stage, config, samples, step.a_view, hardware)]
        notes += _batch_notes(stage, hardware.gpus)
        if step.steps is not None and step.steps < FEW_STEPS:
            notes.append(few_steps(stage, step.steps))
        for note in notes:
            console.print(f"- {note}", markup=False, highlight=False, soft_wrap=True)
    known = [value for value in hours if value is not None]
    if len(stages) > 1 and known:
        missing = f" ({len(hours) - len(known)} stage(s) unknown)" if len(known) < len(hours) else ""
        console.print(f"all stages: {_time(sum(known))}{missing}", highlight=False)


def memory_table(model: SlimeForConditionalGeneration, stage: Stage, gpus: int) -> Table:
    """Return a table of the memory of one process: under DDP, and with several processes under FSDP, too."""
    columns = {"GiB" if gpus == 1 else f"GiB, DDP on {gpus}": memory_estimate(model, stage, processes=gpus)}
    if gpus > 1:
        columns[f"GiB, FSDP on {gpus}"] = memory_estimate(model, stage, processes=gpus, sharded=True)
    table = Table("purpose", *columns, title=f"memory of one process, stage {stage.name} (estimate)")
    for name in dict.fromkeys(name for parts in columns.values() for name in parts):
        table.add_row(name, *(f"{parts[name] / GIB:.2f}" if name in parts else "" for parts in columns.values()))
    table.add_row("sum", *(f"{sum(parts.values()) / GIB:.2f}" for parts in columns.values()))
    return table


@dataclass(frozen=True)
class StepPlan:
    """An optimizer step of a stage with average samples.

    Attributes:
        work: Units of a step, see `step_flops.UNITS`.
        flops: Operations of a step by part, forward and backward.
        longest: Tokens of the longest row among the samples.
        batch_size: Samples of a step.
        steps: Steps of the stage; None if the number of records is unknown.
        a_view: Operations of encoding one view, forward and backward.
    """

    work: Mapping[str, float]
    flops: Mapping[str, float]
    longest: float
    batch_size: int
    steps: int | None
    a_view: float = 0.0

    def seconds(self, hardware: Hardware) -> float | None:
        """Return the seconds of a step; None without `tflops`."""
        return hardware.seconds_of(sum(self.flops.values()))

    def hours(self, hardware: Hardware) -> float | None:
        """Return the hours of the stage; None without `tflops` or a number of steps."""
        seconds = self.seconds(hardware)
        return None if seconds is None or self.steps is None else seconds * self.steps / 3600


def plan_step(model: SlimeForConditionalGeneration, stage: Stage, samples: Samples) -> StepPlan:
    """Count the work of an optimizer step.

    Args:
        model: The model after `apply_stage`; the meta device is enough.
        stage: The stage.
        samples: Some samples of the stage.
    """
    found = [work_of(sample, model.config, stage) for sample in samples.found]
    work = {unit: stage.batch_size * sum(each[unit] for each in found) / len(found) for unit in UNITS}
    per_unit = training_flops(model)
    flops: dict[str, float] = {}
    for unit, part in _PART_OF_UNIT.items():
        flops[part] = flops.get(part, 0.0) + flops_of({**dict.fromkeys(UNITS, 0.0), unit: work[unit]}, per_unit)
    steps = stage.steps or (None if samples.count is None else samples.count // stage.batch_size)
    longest = max(each["tokens"] for each in found)
    return StepPlan(work, flops, longest, stage.batch_size, steps, per_unit["views"])


def step_table(stage: Stage, step: StepPlan, hardware: Hardware) -> Table:
    """Return a table of tokens, operations and time of a step and of the stage."""
    table = Table("a step", "", title=f"steps of stage {stage.name} (estimate)")
    tokens = step.work["tokens"]
    table.add_row("samples", f"{step.batch_size:,}")
    table.add_row("tokens through the language model", f"{tokens:,.0f}")
    table.add_row("  of one sample: mean, most", f"{tokens / step.batch_size:,.0f}, {step.longest:,.0f}")
    table.add_row("views encoded", f"{step.work['views']:,.0f}")
    for part, count in step.flops.items():
        if count:
            table.add_row(f"TFLOP, {part}", f"{count / 1e12:,.4g}")
    table.add_row("TFLOP, all", f"{sum(step.flops.values()) / 1e12:,.4g}")
    unknown = f"unknown without the data; --set stages.{stage.name}.steps=N"
    table.add_row("steps", unknown if step.steps is None else f"{step.steps:,}")
    seconds, hours = step.seconds(hardware), step.hours(hardware)
    if seconds is None:
        table.add_row("time", "give --tflops (of one GPU) and --gpus")
    else:
        with_ = f"{hardware.gpus} x {hardware.tflops:g} TFLOP/s at {hardware.utilisation:.0%}"
        table.add_row(f"seconds, {with_}", f"{seconds:.3g}")
        per_sample = seconds / step.batch_size / 3600
        table.add_row("time of 100,000 samples", _time(100_000 * per_sample))
        table.add_row("time of the stage", "unknown" if hours is None else _time(hours))
    return table


def few_steps(stage: Stage, steps: int) -> str:
    """Return the warning for a stage that hardly changes its model."""
    return (
        f"stage {stage.name} has {steps} step(s) and hardly changes the model; give it more records, epochs or steps, "
        "or a smaller batch_size"
    )


def _batch_notes(stage: Stage, gpus: int) -> list[str]:
    micro = stage.samples_a_pass(gpus)
    if stage.batch_size % (micro * gpus) == 0:
        return []
    expected = f"expected a multiple of {micro} x {gpus}"
    return [f"a run on {gpus} GPUs will be refused: batch_size is {stage.batch_size}, {expected}"]


def _cache_notes(stage: Stage, config: SlimeConfig, samples: Samples, a_view: float, hardware: Hardware) -> list[str]:
    """Return notes on the disk space and the time of storing features, which the steps of the stage do not include."""
    if stage.cache_features is None:
        return []
    size = cached_view_bytes(config, stage.cache_features.dtype)
    views = sum(sum(views_seen(sample, config, stage)) for sample in samples.found) / len(samples.found)
    images = sum(len(sample.grids) for sample in samples.found) / len(samples.found)
    a_image = size * views / max(images, 1e-9)
    size_note = f"features: {a_image / 2**20:.3g} MiB per image ({views / max(images, 1e-9):.3g} views)"
    if samples.records is None:
        return [f"{size_note} in {stage.cache_features.folder}, at most {stage.cache_features.max_gib:g} GiB"]
    all_ = samples.records * images
    encoding = samples.records * views * a_view
    seconds = hardware.seconds_of(encoding)
    time = "" if seconds is None else f", {_time(seconds / 3600)}"
    return [
        f"{size_note} x {all_:,.0f} images = {all_ * a_image / GIB:,.1f} GiB in {stage.cache_features.folder}, at most "
        f"{stage.cache_features.max_gib:g} GiB",
        f"encoding them once, before the steps: {encoding / 1e12:,.4g} TFLOP{time}; none for images that are stored "
        "already",
    ]


def cached_view_bytes(config: SlimeConfig, dtype: str) -> int:
    """Return the bytes of the stored features of one view."""
    return config.num_features * config.vision_width * (4 if dtype == "float32" else 2)


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.3g} min"
