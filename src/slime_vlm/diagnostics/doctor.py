"""Examine this machine: versions, devices, number types, and what is missing for which feature."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass

from packaging.requirements import InvalidRequirement, Requirement

from slime_vlm.diagnostics.cpu_features import cpu_gains_from_packing, cpu_has_bf16

DISTRIBUTION = "slime-vlm"

# What every extra adds. A test compares it with the extras that the package declares.
PURPOSES = {
    "train": "training by recipes",
    "eval": "rendered pages, benchmarks and ablations",
    "data": "records in Parquet files and from the datasets library",
    "convert": "Vicuna's tokenizer",
    "gguf": "language models in GGUF files",
    "quantize": "language models in int8 and 4 bits",
    "torchao": "language models in int8 by torchao",
    "tiff": "TIFF with 16 bits, GeoTIFF and rare compressions",
    "dicom": "DICOM images",
    "pdf": "pages of PDF files",
    "heic": "HEIC images",
    "video": "frames of videos",
    "ocr": "an OCR reader as a baseline of ablations",
    "inputs": "all image formats, and videos",
    "scores": "OCRBench v2's scores of whole texts, tables and documents",
    "serve": "the server",
    "ray": "jobs and servers on many machines",
    "docs": "the documentation site, for contributors",
    "dev": "tests and checks, for contributors",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: Subject of the finding.
        state: `ok`, `wrong` (something does not work as it is), `optional` (an extra that is not installed) or `note`.
        text: What was found, and what to do about it.
    """

    topic: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Examine versions, devices, the shipped models and every extra. Never raises, whatever is broken."""
    found: list[Finding] = []
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("versions", _versions),
        ("devices", _devices),
        ("models", _models),
        ("extras", _extras),
    ]
    for topic, check in checks:
        try:
            found += check()
        # A broken library must not keep the others from being examined, whatever it raises.
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            found.append(Finding(topic, "wrong", f"cannot be examined ({text})"))
    return found


def as_dicts(findings: list[Finding]) -> list[dict[str, str]]:
    """Return the findings as JSON types."""
    return [asdict(finding) for finding in findings]


def _versions() -> list[Finding]:
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in (DISTRIBUTION, "torch", "transformers", "tokenizers", "safetensors", "Pillow", "numpy"):
        version = _version(name)
        if version is not None:
            found.append(Finding(name, "ok", version))
        elif name == DISTRIBUTION:
            found.append(Finding(name, "note", "runs from source, not installed: pip install -e ."))
        else:
            found.append(Finding(name, "wrong", f"not installed: pip install {DISTRIBUTION}"))
    return found


def _devices() -> list[Finding]:
    import torch

    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB of memory"
    found = [Finding("cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use{memory}")]
    fast = cpu_has_bf16()
    text = "in hardware" if fast else "works, but slowly: no bf16 instructions; use float32"
    found.append(Finding("bf16 on cpu", "ok" if fast else "note", text))
    text = "used in float32 (AMD with AVX-512)" if cpu_gains_from_packing() else "not used: for AMD with AVX-512"
    found.append(Finding("packed weights", "ok", text))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            text = f"{device.name}, {device.total_memory / 2**30:.1f} GiB, capability {device.major}.{device.minor}"
            found.append(Finding(f"cuda:{index}", "ok", text))
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        text = "in hardware" if bf16 else "not in hardware: use --dtype float16"
        found.append(Finding("bf16 on cuda", "ok" if bf16 else "note", text))
    elif torch.version.cuda is None:
        found.append(
            Finding("cuda", "note", "this torch is built without CUDA; install a CUDA build of torch to use a GPU")
        )
    else:
        found.append(Finding("cuda", "note", f"torch has CUDA {torch.version.cuda}, but found no GPU or no driver"))
    if torch.backends.mps.is_available():
        found.append(Finding("mps", "ok", "available: --device mps"))
    return found


def _models() -> list[Finding]:
    from slime_vlm.checkpoints.shipped import SHIPPED

    found = []
    for name, folder in SHIPPED.items():
        if (folder / "model.safetensors").is_file():
            found.append(Finding(f"model {name}", "ok", "shipped with the package"))
        else:
            found.append(Finding(f"model {name}", "wrong", "not in this installation; reinstall the package"))
    return found


def _extras() -> list[Finding]:
    """Return one finding for each extra that the installed package declares, so that none is forgotten."""
    try:
        declared = importlib.metadata.metadata(DISTRIBUTION)
        requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except (importlib.metadata.PackageNotFoundError, InvalidRequirement):
        return [Finding("extras", "note", "unknown, the package is not installed: pip install -e .")]
    found = []
    for extra in declared.get_all("Provides-Extra") or []:
        if not any(_is_of(requirement, extra) for requirement in requirements):
            found.append(Finding(f"extra {extra}", "note", "reserved, installs nothing yet"))
            continue
        absent, outdated = missing_of(extra, requirements)
        topic, purpose = f"extra {extra}", PURPOSES.get(extra, "more features")
        install = f"pip install '{DISTRIBUTION}[{extra}]'"
        if outdated:
            found.append(Finding(topic, "wrong", f"{purpose}: found {', '.join(outdated)}; {install}"))
        elif absent:
            found.append(Finding(topic, "optional", f"adds {purpose} ({', '.join(absent)}): {install}"))
        else:
            found.append(Finding(topic, "ok", purpose))
    return found


def missing_of(
    extra: str, requirements: list[Requirement], seen: frozenset[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Return the requirements of an extra that are not installed, and those whose version does not fit.

    The latter are written as `name 1.0 (needs >=2)`.

    Args:
        extra: Name of the extra.
        requirements: All requirements of the package, with their markers.
        seen: Extras that include this one, for extras that name other extras of the package.
    """
    absent: list[str] = []
    outdated: list[str] = []
    for requirement in requirements:
        if not _is_of(requirement, extra):
            continue
        if requirement.name == DISTRIBUTION:
            for other in sorted(requirement.extras - seen - {extra}):
                inner = missing_of(other, requirements, seen | {extra})
                absent += inner[0]
                outdated += inner[1]
            continue
        version = _version(requirement.name)
        if version is None:
            absent.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            outdated.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    return list(dict.fromkeys(absent)), list(dict.fromkeys(outdated))


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement exists because of an extra, and not in any case."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
