"""The throughput of a run: samples and tokens per second, model FLOPs utilisation, share of time waiting for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slime_vlm.training.planning.step_flops import UNITS, flops_of

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

_ON_DEVICE = ("tokens", "pairs", "logits")


class Speedometer:
    """Count the work of the parts of a model, and the time it takes.

    Hooks count the work where it happens: tokens in the language model, after selection and without padding, and only
    views that are encoded. Nothing waits for the device until the numbers are read.

    Args:
        model: The model, before DDP or FSDP wrap it.
        flops: Operations per unit, see `step_flops.training_flops`.
        peak: Most operations per second of one process.
    """

    def __init__(self, model: SlimeForConditionalGeneration, flops: Mapping[str, float], peak: float) -> None:
        self.flops, self.peak = flops, peak
        self.totals = dict.fromkeys(("seconds", "samples", "tokens", "flops"), 0.0)
        """Sums over all processes since the start of the run, including resumed parts; `seconds` is the mean."""
        self._begin: float | None = None
        self._clear()
        inner = model.model
        adapter = None if inner.global_adapter is None else inner.global_adapter.query_attention
        self._watch(inner.vision_tower, lambda views: {"views": len(views)})
        self._watch(adapter, lambda features: {"adapted": len(features)})
        self._watch(inner.local_compressor, lambda features: {"tiles": len(features)})
        self._watch(inner.projector, lambda features: {"projected": features.shape[:-1].numel()})
        inner.language_model.register_forward_pre_hook(self._read_rows, with_kwargs=True)

    def batches(self, batches: Iterator[Any], samples: int) -> Iterator[Any]:
        """Yield micro batches, and count them and the time that the step waits for them.

        Args:
            batches: Micro batches of this process.
            samples: Samples in each of them.
        """
        while True:
            asked = time.perf_counter()
            self._begin = asked if self._begin is None else self._begin
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            self._samples += samples
            if "labels" in batch:
                self._add("logits", (batch["labels"] != -100).sum())
            yield batch

    def read(self, gather: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Return the numbers since the last call, over all processes, for a log.

        Args:
            gather: Concatenates a tensor of every process. All processes call this together.
            device: Device of such tensors.
        """
        sums = self._gathered(gather, device)
        self.totals = self._with(sums)
        self._clear()
        self._begin = time.perf_counter()
        seconds = max(sums["seconds"], 1e-9)
        return {
            "samples_per_s": sums["samples"] / seconds,
            "tokens_per_s": sums["tokens"] / seconds,
            "mfu": sums["flops"] / max(sums["possible"], 1e-9),
            "data_wait": sums["waited"] / seconds / sums["processes"],
        }

    def totals_now(self, gather: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Return `totals` including the work since the last `read`. All processes call this together."""
        return self._with(self._gathered(gather, device))

    def _with(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {name: value + sums[name] for name, value in self.totals.items()}

    def _gathered(self, gather: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        seconds = 0.0 if self._begin is None else time.perf_counter() - self._begin
        work = {unit: float(count) for unit, count in self._work.items()}
        ours = {
            "samples": float(self._samples),
            "tokens": work["tokens"],
            "flops": flops_of(work, self.flops),
            "possible": self.peak * seconds,
            "waited": self._waited,
            "seconds": seconds,
            "processes": 1.0,
        }
        # Some devices have no float64, and seven digits are enough.
        every = gather(torch.tensor(list(ours.values()), dtype=torch.float32, device=device))
        sums = dict(zip(ours, every.view(-1, len(ours)).double().sum(0).tolist(), strict=True))
        return {**sums, "seconds": sums["seconds"] / sums["processes"]}

    def _clear(self) -> None:
        self._work: dict[str, Any] = dict.fromkeys(UNITS, 0)
        self._samples, self._waited = 0, 0.0

    def _add(self, unit: str, count: Any) -> None:
        self._work[unit] = self._work[unit] + count

    def _watch(self, part: nn.Module | None, count: Callable[[Tensor], dict[str, int]]) -> None:
        if part is None:
            return

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for unit, number in count(args[0] if args else kwargs["pixel_values"]).items():
                self._add(unit, number)

        part.register_forward_pre_hook(hook, with_kwargs=True)

    def _read_rows(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows = kwargs["inputs_embeds"] if "inputs_embeds" in kwargs else kwargs["input_ids"]
        lengths = row_lengths(rows, kwargs.get("attention_mask"), kwargs.get("position_ids"))
        self._add("tokens", lengths.sum())
        self._add("pairs", (lengths * lengths).sum())


def row_lengths(rows: Tensor, mask: Any, position_ids: Tensor | None) -> Tensor:
    """Return the lengths of the sequences in a batch: rows without padding, or the samples packed into them.

    Args:
        rows: [B, S, ...].
        mask: [B, S], or [B, 1, S, S] for pairs (0 or True where a token is attended to), or None.
        position_ids: [B, S]. Without a mask, a new sample begins wherever they restart.
    """
    batch, length = rows.shape[:2]
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask[:, -length:].long().sum(1)
    if isinstance(mask, Tensor) and mask.ndim == 4:
        # Every real token attends to itself.
        own = mask.diagonal(dim1=-2, dim2=-1)[:, 0]
        return (own if own.dtype == torch.bool else own == 0).long().sum(1)
    if position_ids is None or position_ids.shape[-1] != length:
        return torch.full((batch,), length, device=rows.device)
    positions = position_ids.expand(batch, length) if position_ids.ndim == 2 else position_ids[0]
    starts = torch.ones_like(positions, dtype=torch.bool)
    starts[:, 1:] = positions[:, 1:] <= positions[:, :-1]
    sample = starts.flatten().long().cumsum(0) - 1
    return torch.zeros_like(sample).index_add_(0, sample, torch.ones_like(sample))


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of a large matrix product, the best of a few. Takes a fraction of a second."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.ones(size, size, dtype=dtype, device=device)
    right = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        _wait_for(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        _wait_for(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
