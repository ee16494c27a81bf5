"""Options and small models for all tests."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

IMAGE_TOKEN = 60

# vLLM has an environment of its own: `make test-vllm`.
collect_ignore = [] if find_spec("vllm") else ["engines/test_vllm.py"]

# The files that take longest, longest first. Started last, one of them would keep a single worker busy while the others
# wait.
# Their tests are marked slow: `make test-fast` leaves them out.
LONG_FILES = [
    Path(__file__).parent / name
    for name in (
        "training/test_resume.py",
        "test_benchmarks.py",
        "training/test_terminal_output.py",
        "training/distributed/test_sharded_lora.py",
        "evaluation/test_run.py",
        "training/distributed/test_machines.py",
        "training/distributed/test_fsdp.py",
        "robustness/test_kills.py",
        "training/distributed/test_processes_agree.py",
        "training/distributed/test_data_parallel.py",
        "test_auto_classes.py",
        "evaluation/test_killed.py",
        "training/pages/test_objectives.py",
        "training/test_lora.py",
        "model/test_hub_stub.py",
        "training/test_finetune.py",
        "training/test_trainer.py",
        "evaluation/ablation/test_run.py",
        "training/test_records.py",
        "training/recipe/test_paper_recipe.py",
        "training/features/test_cache.py",
        "training/pages/test_train_reader.py",
        "test_readme.py",
        "checkpoints/pretrained_parts/test_real_llm.py",
        "training/reporting/test_stage_report.py",
        "training/test_models.py",
        "training/test_few_steps.py",
        "checkpoints/test_nano.py",
        "checkpoints/lora/test_peft_folder.py",
        "test_public_api.py",
        "training/distributed/test_uneven_processes.py",
        "training/test_data_changes.py",
        "training/test_packing.py",
        "test_examples.py",
        "harnesses/test_trainer_metrics.py",
    )
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where parity data lie; here, so that the option is known however pytest is started."""
    parser.addoption("--parity-root", default=None, help="folder with parity data (default: the committed subset)")
    parser.addoption(
        "--gpu", action="store_true", help="let the tests of one process use a GPU (default: none sees it)"
    )


def pytest_report_header() -> list[str]:
    """Say which files are left out."""
    return [f"left out, vLLM is not installed (make test-vllm): tests/{name}" for name in collect_ignore]


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, before anything asks for them: tests say the same on every machine."""
    if not config.getoption("--gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Collecting imports torch, transformers and every test: half a million objects that stay. See below.
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported out of later searches for garbage: each would take a quarter of a second."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, and mark their tests slow. Workers take files in this order (`--no-loadscope-reorder`)."""
    assert all(path.is_file() for path in LONG_FILES)
    places = {path: place for place, path in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    # Before pytest itself selects by marker, hence `tryfirst`.
    for item in items:
        if item.path in places:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tiny matrices gain nothing from threads, and machines with many cores lose minutes to them.
    torch.set_num_threads(1)


def tiny_config(**overrides: Any) -> SlimeConfig:
    """A SliME of a few thousand parameters: views of 56 pixels, 16 vision tokens, 4 queries a tile."""
    fields: dict[str, Any] = {
        "vision_config": CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        ),
        "text_config": LlamaConfig(
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=3,
            vocab_size=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        ),
        "image_token_id": IMAGE_TOKEN,
        "separator_token_id": 3,
        "num_local_queries": 4,
        "query_attention_head_dim": 8,
    }
    return SlimeConfig(**{**fields, **overrides})


def tiny_model(seed: int = 0, **overrides: Any) -> SlimeForConditionalGeneration:
    """A tiny model with weights large enough that every part matters to the logits."""
    torch.manual_seed(seed)
    model = SlimeForConditionalGeneration(tiny_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


def prompt_ids(config: SlimeConfig, *parts: list[int] | tuple[int, int]) -> list[int]:
    """Token ids of a prompt: lists are text, a (rows, columns) tuple is an image of that grid."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, tuple):
            ids += [config.image_token_id] * config.token_layout.num_image_tokens(*part)
        else:
            ids += part
    return ids


def pad_batch(rows: list[list[int]], side: str = "right", pad: int = 0) -> dict[str, torch.Tensor]:
    """Pad rows of token ids to one batch with its attention mask."""
    length = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        gap = [0] * (length - len(row))
        fill = [pad] * len(gap)
        ids.append(fill + row if side == "left" else row + fill)
        mask.append(gap + [1] * len(row) if side == "left" else [1] * len(row) + gap)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.fixture
def model() -> SlimeForConditionalGeneration:
    """A tiny model of the published design."""
    return tiny_model()
