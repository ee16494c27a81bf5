"""Whether this machine computes in bfloat16 fast: without instructions for it a CPU is some seventy times slower."""

from __future__ import annotations


def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bfloat16 (AVX-512 BF16, AMX, ARMv8.6); False if unknown."""
    return any("bf16" in flag for flag in _cpu_flags())


def has_bf16() -> bool:
    """Whether the device that training would use has instructions for bfloat16."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()


def _cpu_flags() -> list[str]:
    """Names of the processor's abilities, empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.lower().startswith(("flags", "features")):
                    return line.lower().split()
    except OSError:
        pass
    return []
