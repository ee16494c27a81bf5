"""Load many damaged checkpoints of both layouts, answer with those that load, and count what happens."""

from __future__ import annotations

import dataclasses
import json
import random
import resource
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from PIL import Image

from slime_vlm import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.errors import SlimeError
from slime_vlm.inference.answering import encode
from slime_vlm.model.configuration_fields import SlimeFields
from tests.robustness.mutating import ODD_VALUES, mutated, mutated_json
from tests.tiny_published import write_published

# Beyond what the process has: the checkpoints take a few megabytes.
_MEMORY = 2_000_000_000
_SECONDS = 20


def try_checkpoints(count: int, seed: int = 0) -> Counter[str]:
    """Load damaged checkpoints, native and published in turn, and ask those that load.

    Args:
        count: How many.
        seed: Seed of the damage.

    Returns:
        Counts as of `fuzz_images.try_images`.
    """
    counts: Counter[str] = Counter(tried=0, opened=0, refused=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layouts = _write_layouts(folder)
        for number in range(count):
            damaged = _fresh_copy(layouts[number % 2], folder / "damaged")
            what = _damage(damaged, random.Random(f"{seed} {number}"))
            _count(damaged, f"{what}, {seed} {number}", counts)
    return counts


def try_settings(values: int, seed: int = 0) -> Counter[str]:
    """Give every setting of a checkpoint odd values, one at a time, in both layouts, and ask those that load.

    Args:
        values: How many of the odd values each setting gets.
        seed: Seed of the choice.

    Returns:
        Counts as of `fuzz_images.try_images`.
    """
    counts: Counter[str] = Counter(tried=0, opened=0, refused=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for layout in _write_layouts(folder):
            files = [path for path in sorted(layout.rglob("*.json")) if path.name != "tokenizer.json"]
            # A converted folder keeps those of its origin for the way back.
            files = [path for path in files if "published" not in path.relative_to(layout).parts]
            settings = [(path, place) for path in files for place in _settings(path)]
            for path, place in settings:
                what = f"{layout.name}, {path.name}, {'.'.join(place)}"
                for odd in random.Random(f"{seed} {what}").sample(ODD_VALUES, min(values, len(ODD_VALUES))):
                    damaged = _fresh_copy(layout, folder / "damaged")
                    fields = json.loads(path.read_text())
                    (fields[place[0]] if len(place) > 1 else fields)[place[-1]] = odd
                    (damaged / path.relative_to(layout)).write_text(json.dumps(fields))
                    _count(damaged, f"{what}, {odd!r:.40}", counts)
    return counts


def _settings(path: Path) -> list[tuple[str, ...]]:
    """List the settings of a JSON file with those of its parts, and the fields of a config that it leaves out."""
    fields = json.loads(path.read_text())
    inner = [(name, part) for name, value in fields.items() if isinstance(value, dict) for part in value]
    absent = [field.name for field in dataclasses.fields(SlimeFields) if field.name not in fields]
    is_native = fields.get("model_type") == "slime"
    return [(name,) for name in [*fields, *(absent if is_native else ())]] + inner


def _write_layouts(folder: Path) -> tuple[Path, Path]:
    """Write a tiny checkpoint in both layouts: native, published."""
    published = write_published(folder / "published")
    convert(published, folder / "native")
    return folder / "native", published


def _fresh_copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def _damage(folder: Path, chance: random.Random) -> str:
    """Damage one file of a folder, a config more often than others, and return its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".py"))
    configs = [path for path in files if path.suffix == ".json" and path.name != "tokenizer.json"]
    path = chance.choice(configs if chance.random() < 0.7 else files)
    if path in configs and chance.random() < 0.8:
        value = mutated_json(json.loads(path.read_text()), chance)
        path.write_text(json.dumps(value))
    elif chance.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(mutated(path.read_bytes(), chance))
    return path.name


def _count(folder: Path, what: str, counts: Counter[str]) -> None:
    counts["tried"] += 1
    start = time.process_time()
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + _MEMORY, hard))
    try:
        with torch.no_grad():
            model, processor = load(folder, device="cpu")
            encode(model, processor, Image.new("RGB", (40, 30))).ask("What?", max_new_tokens=2)
        counts["opened"] += 1
    except SlimeError as error:
        counts["refused"] += 1
        counts[f"several lines: {what}"] += "\n" in str(error)
    except MemoryError:
        counts["over memory"] += 1
        counts[f"over memory: {what}"] += 1
    except Exception as error:
        counts["foreign exception"] += 1
        counts[f"{type(error).__name__}: {str(error)[:200]} ({what})"] += 1
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (_soft, hard))
    counts["over time"] += time.process_time() - start > _SECONDS
