"""What the benchmarks in this folder share: the device, its name, and what it can do at most."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most.

    Attributes:
        multiply: Floating point operations a second in products of large square matrices.
        read: Bytes a second that are read when a large tensor is summed.
    """

    multiply: float
    read: float

    def __str__(self) -> str:
        return f"products {self.multiply / 1e12:.1f} TFLOP/s, memory {self.read / 1e9:,.0f} GB/s"


def device_of(parser: argparse.ArgumentParser, name: str) -> torch.device:
    """Return a device by its name, and end the program if it is a GPU that is not there."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device was found; --small --device cpu is a quick check that the script works")
    return device


def name_of(device: torch.device) -> str:
    """Return how the maker calls a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the least seconds of some calls, after one that is not counted."""
    function()
    found = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def measure_ceilings(device: torch.device, dtype: torch.dtype, small: bool = False) -> Ceilings:
    """Measure a device.

    Args:
        device: The device.
        dtype: Type of the matrices.
        small: Whether they are small, as in a quick check.
    """
    side, numbers = (256, 2**20) if small else (8192, 2**30)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    multiply = 2 * side**3 / seconds_of(lambda: left @ right, device)
    many = torch.zeros(numbers, dtype=dtype, device=device)
    return Ceilings(multiply, many.nbytes / seconds_of(many.sum, device))
