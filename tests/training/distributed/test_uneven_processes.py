"""Two processes of which one has text alone, or more views than the other, wait for each other and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from slime_vlm.training.distributed.fsdp import keep_embeddings
from tests.conftest import tiny_model
from tests.model.training_batches import ROWS, TEXT_ROWS, mixed_batch
from tests.training.forking import forking

TIMEOUT = 400.0

# Rows of the first and of the second process. With two views a chunk, four tiles take three runs of the encoder.
CASES: dict[str, tuple[Any, Any]] = {
    "text on one": (TEXT_ROWS, [ROWS[0], ROWS[3]]),
    "text on both": (TEXT_ROWS, TEXT_ROWS[:1]),
    "uneven tiles": (ROWS, [ROWS[3]]),
    # The first process reads stored features (`training/features/cache.py`), the second encodes a blank view.
    "stored features on one": ([ROWS[0], ROWS[3]], TEXT_ROWS),
}

OPTIONS: dict[str, Any] = {"selector_noise": 0.0, "gate_noise": False, "views_per_chunk": 2, "selector": "attention"}


def model_in_training() -> Any:
    model = tiny_model(**OPTIONS).train()
    model.model.vision_tower.requires_grad_(False).eval()
    return model


def data_parallel(model: Any) -> Any:
    return DistributedDataParallel(model, find_unused_parameters=True)


def sharded(model: Any) -> Any:
    """Spread over processes part by part, so that each use of a part is a meeting of all."""
    kinds = ("CLIPEncoderLayer", "QueryAttention", "AttentionScorer", "LlamaDecoderLayer")
    parts = [part for part in model.modules() if type(part).__name__ in kinds]
    assert {type(part).__name__ for part in parts} == set(kinds)
    # Embeddings and head are units of their own in Accelerate, too.
    for part in [*parts, model.model.projector, model.get_input_embeddings(), model.lm_head]:
        fully_shard(part)
    fully_shard(model)
    keep_embeddings(model)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    return model


WRAPPERS: dict[str, Callable[[Any], Any]] = {"ddp": data_parallel, "fsdp": sharded}


def _step(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for way, wrap in WRAPPERS.items():
        for case, rows in CASES.items():
            model = model_in_training()
            batch = mixed_batch(model, rows[rank])
            if case == "stored features on one" and "pixel_values" in batch:
                batch["pixel_values"] = model.eval().model.encode_views(batch["pixel_values"])
                model = model_in_training()
            wrapped = wrap(model)
            loss = wrapped(**batch, loss_only=True, pack=True).loss
            loss.backward()
            grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            full = {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}
            found[way, case] = loss.detach(), full
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def alone(rows: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one process."""
    model = model_in_training()
    loss = model(**mixed_batch(model, rows), loss_only=True).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_uneven_batches_meet(tmp_path: Path) -> None:
    method = forking().get_start_method()
    processes = mp.start_processes(_step, (str(tmp_path),), nprocs=2, join=False, start_method=method)
    deadline, done = time.monotonic() + TIMEOUT, False
    try:
        # Comes back whenever one of them ends; an error in one is raised here.
        while not done and time.monotonic() < deadline:
            done = processes.join(timeout=10.0)
    finally:
        for process in processes.processes:
            process.kill()
    assert done, "the processes wait for each other for ever"
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case, rows in CASES.items():
        expected = [alone(part) for part in rows]
        for way in WRAPPERS:
            for rank in range(2):
                loss, grads = found[rank][way, case]
                torch.testing.assert_close(loss, expected[rank][0], atol=1e-5, rtol=1e-5)
                for name, first in expected[0][1].items():
                    mean = (first + expected[1][1][name]) / 2
                    torch.testing.assert_close(grads[name], mean, atol=1e-5, rtol=1e-3, msg=f"{way}, {case}: {name}")
