"""Detect fast bfloat16, instructions for int8, and processors that gain from packed weights.

Without instructions for it, a CPU is about seventy times slower than in float32. With AVX-512 BF16 alone it is not
faster: training took 1.8 times as long on a Xeon that has it and no AMX. The answer depends on the processor and not
on a timing, so that a resumed run computes as before.
"""

from __future__ import annotations


def cpu_has_bf16() -> bool:
    """Return whether the processor gains from bfloat16 (AMX, ARMv8.6), or False if unknown."""
    return any(flag in ("amx_bf16", "bf16") for flag in _cpu_flags())


def cpu_has_vnni() -> bool:
    """Return whether the processor multiplies int8 without overflow (AVX-512 VNNI), or False if unknown."""
    return "avx512_vnni" in _cpu_flags()


def cpu_gains_from_packing() -> bool:
    """Return whether MKL leaves AVX-512 unused, as on processors of AMD, or False if unknown."""
    return "avx512f" in _cpu_flags() and _vendor() == "authenticamd"


def has_bf16() -> bool:
    """Return whether the device that training would use computes faster in bfloat16."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()


def _cpu_flags() -> list[str]:
    """Return the processor's feature flags, or nothing if the system does not report them."""
    return _cpu_line("flags", "features")


def _vendor() -> str:
    """Return the maker of the processor, or nothing if the system does not report it."""
    return (_cpu_line("vendor_id") or [""])[-1]


def _cpu_line(*names: str) -> list[str]:
    """Return the words of a line about the first processor, in lower case."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.lower().startswith(names):
                    return line.lower().split()
    except OSError:
        pass
    return []
