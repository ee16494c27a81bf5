"""The Trainer of all stages: transformers' Trainer with the stage's loss and learning rates, and timed checkpoints."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from slime_vlm.data import MixtureOrder
from slime_vlm.errors import ConfigError
from slime_vlm.training.checkpoint_manifest import remove_old_checkpoints, sync, write_manifest
from slime_vlm.training.distributed.deepspeed import check_zero_checkpoint
from slime_vlm.training.distributed.fsdp import is_sharded, keep_embeddings, layer_classes, load_shards
from slime_vlm.training.records import BadRecords, share_of_seen
from slime_vlm.training.reporting.throughput import Speedometer

Objective = Callable[[Any, dict[str, Tensor]], tuple[Tensor, dict[str, float]]]


class SlimeTrainer(Trainer):
    """Trainer with a learning rate per parameter, a replaceable loss, and frozen parts in evaluation mode.

    Its checkpoints hold the sums since the last log and the bad records so far. The Trainer of transformers restarts
    its running loss after a resume, so the next point of the curve would be the mean of fewer steps.

    Args:
        objective: (model, batch) -> (loss, logs); None uses the model's own loss.
        rates: Learning rate of every trainable parameter by name.
        frozen: Children of `model.model` to keep in evaluation mode.
        bad_records: Counts the records that batches list as bad; None for a stage without records.
        pack: Whether to concatenate the rows of a micro batch; needs the model's own loss.
        speed: Counts samples, tokens and operations for the logs; None for none.
        accept_data: Continue from a checkpoint though the data changed since then, with no record counted as bad.
        kwargs: Arguments of Trainer.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective | None,
        rates: dict[str, float],
        frozen: list[str],
        bad_records: BadRecords | None = None,
        pack: bool = False,
        speed: Speedometer | None = None,
        accept_data: bool = False,
        **kwargs: Any,
    ) -> None:
        with _adapters_declared(kwargs["model"]):
            super().__init__(*args, **kwargs)
        self.pack, self.speed, self.accept_data = pack, speed, accept_data
        self.objective, self.rates, self.frozen, self.bad_records = objective, rates, frozen, bad_records
        if self.is_fsdp_enabled:
            self.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(self.model)
        if objective is not None:
            # Objectives return means over the micro batch; Trainer then averages over the accumulation steps.
            self.model_accepts_loss_kwargs = False
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._loss_sum = torch.zeros((), device=self.args.device)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train. From a checkpoint, restore also the sums at the time when it was written."""
        if resume_from_checkpoint is not None:
            check_zero_checkpoint(Path(resume_from_checkpoint), self.is_deepspeed_enabled, self.args.world_size)
            self._restore_sums(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _restore_sums(self, checkpoint: Path) -> None:
        # By length first, so that 10 comes after 9.
        paths = sorted(checkpoint.glob("sums_*.json"), key=lambda path: (len(path.name), path.name))
        kept = [json.loads(path.read_text()) for path in paths]
        if not kept:
            return
        processes, process = self.args.world_size, self.args.process_index
        if self.bad_records is not None and not self.accept_data:
            lists = [sums["bad_records"] for sums in kept]
            self.bad_records.seen.update(share_of_seen(lists, process, processes))
        # If the number of processes changed, each continues with the mean.
        own = kept[process : process + 1] if len(kept) == processes else kept
        self._loss_sum += sum(sums["loss"] for sums in own) / len(own)
        self._sums.update(own[0]["sums"])
        if self.speed is not None:
            self.speed.totals.update(own[0].get("speed", {}))
        if isinstance(self.train_dataset, MixtureOrder) and "data" in kept[0] and not self.accept_data:
            self.train_dataset.check(kept[0]["data"])

    def _sums_file(self, checkpoint: Path) -> Path:
        return checkpoint / f"sums_{self.args.process_index}.json"

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        if self.is_fsdp_enabled and not is_sharded(checkpoint):
            raise ConfigError(
                f"{checkpoint} is not sharded: continue with --resume without FSDP, as the run was started"
            )
        # Shards for a whole model are read together with those of the optimizer, below.
        if self.is_fsdp_enabled or not is_sharded(checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_fsdp_enabled or not is_sharded(Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_shards(Path(checkpoint), self.model, self.optimizer.optimizer)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        bad = [] if self.bad_records is None else sorted(self.bad_records.seen)
        kept: dict[str, Any] = {"loss": self._loss_sum.item(), "sums": self._sums, "bad_records": bad}
        if isinstance(self.train_dataset, MixtureOrder):
            samples = self.state.global_step * self.args.gradient_accumulation_steps * self.args.train_batch_size
            kept["data"] = self.train_dataset.state(samples * self.args.world_size)
        if self.speed is not None:
            kept["speed"] = self.speed.totals_now(self.accelerator.gather, self.args.device)
        path = self._sums_file(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        path.write_text(json.dumps(kept))

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any) -> Any:
        """Return the batches of an optimizer step, and count the bad records that they list."""
        batches = self._without_bad(epoch_iterator)
        if self.speed is not None:
            batches = self.speed.batches(batches, self.args.train_batch_size)
        return super().get_batch_samples(batches, *args)

    def _without_bad(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            if self.bad_records is not None:
                self.bad_records.add(batch.pop("bad_records"))
            yield batch

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run one forward and backward pass, and add its loss to the sum for the next log."""
        loss = super().training_step(*args, **kwargs)
        self._loss_sum += loss
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW with a parameter group for every learning rate."""
        if self.optimizer is None:  # type: ignore[has-type]
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    by_rate[self.rates.get(name, self.args.learning_rate)].append(parameter)
            options["weight_decay"] = self.args.weight_decay
            self.optimizer = cls([{"params": group, "lr": rate} for rate, group in by_rate.items()], **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create the schedule of the stage. Its first step learns, too.

        Deviation: the published warm-up begins at a rate of 0, so its first step changes no weight, and a run of one
        step changes nothing at all. Here step i of W warm-up steps, counted from 0, has (i + 1) / W of the rate.
        """
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        if isinstance(scheduler, LambdaLR) and warmup:
            scheduler.lr_lambdas = [partial(_warm_up_from_above_zero, one, warmup) for one in scheduler.lr_lambdas]
            rates = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, base, factor in rates:
                group["lr"] = base * factor(scheduler.last_epoch)
            # Else the log of the first step would show the published rate, 0.
            scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
        return scheduler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of the stage's objective."""
        inner = self.accelerator.unwrap_model(model)
        if self.is_fsdp_enabled:
            keep_embeddings(inner)
        for name in self.frozen:
            inner.get_submodule(f"model.{name}").eval()
        if self.objective is None:
            inputs = {**inputs, "loss_only": True, "pack": self.pack}
            # FSDP2 casts only the weights that it gathers, and Accelerate adds no autocast to it. Buffers in float32
            # would meet weights in bfloat16. Without FSDP, Accelerate has autocast around the model's forward already.
            with self.accelerator.autocast() if self.is_fsdp_enabled else nullcontext():
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        objective = self.objective

        def run(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
            # The forward that this replaces is the one in which Accelerate casts.
            with self.accelerator.autocast():
                return objective(inner, batch)

        with _replaced_forward(inner, run):
            loss, logs = model(inputs)
        for key, value in logs.items():
            self._sums[key].append(value)
        return (loss, logs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log means over all steps since the last log, of the loss and of the numbers of the objective."""
        if "loss" in logs:
            before = max((entry["step"] for entry in self.state.log_history if "loss" in entry), default=0)
            logs["loss"] = self.accelerator.gather(self._loss_sum).mean().item() / (self.state.global_step - before)
            self._loss_sum.zero_()
            logs |= {key: round(sum(values) / len(values), 4) for key, values in self._sums.items()}
            self._sums.clear()
            if self.speed is not None:
                logs |= self.speed.read(self.accelerator.gather, self.args.device)
        super().log(logs, *args, **kwargs)


@contextmanager
def _adapters_declared(model: Any) -> Iterator[None]:
    """Let Trainer accept a model with quantised weights. It recognises only adapters that transformers added."""
    declared = model._hf_peft_config_loaded
    model._hf_peft_config_loaded = declared or getattr(model, "is_quantized", False)
    try:
        yield
    finally:
        model._hf_peft_config_loaded = declared


@contextmanager
def _replaced_forward(module: Any, run: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward of a module for a while.

    Objectives call the parts of a model one by one, but have to run inside the forward of the wrapper of DDP or FSDP.
    Gradients are exchanged only for passes through that wrapper; otherwise every process would silently learn alone.
    """
    own = vars(module).get("forward")
    module.forward = run
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def of_all_processes(value: Any) -> list[Any]:
    """Return a value of every process of a run. All processes have to call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def wait_for_all_processes() -> None:
    """Wait until every process of a run has come here. All processes have to call this."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def on_any_process(flag: bool) -> bool:
    """Return whether a flag is set on any process. Collective actions have to be decided by all processes together."""
    return any(of_all_processes(flag))


class ClockCheckpoints(TrainerCallback):
    """Save every few minutes, and mark complete checkpoints."""

    def __init__(self, minutes: float) -> None:
        self.seconds, self.last = minutes * 60, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint when it is time."""
        # The clocks of several processes may disagree by a step.
        if on_any_process(time.monotonic() - self.last >= self.seconds) and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as complete when every part is on the disk, then remove old ones."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        wait_for_all_processes()
        # Every process, since a machine can only wait for what it wrote itself.
        sync(checkpoint)
        wait_for_all_processes()
        if args.should_save:
            write_manifest(checkpoint)
            remove_old_checkpoints(checkpoint.parent)
        self.last = time.monotonic()


def _warm_up_from_above_zero(schedule: Callable[[int], float], warmup: int, step: int) -> float:
    """Return the factor of the rate at a step."""
    return (step + 1) / warmup if step < warmup else schedule(step)
