"""TRL's trainers take nano as they take other models. Run by `make test-trl`, in an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import slime_vlm

trl = pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` makes an environment with it")
datasets = pytest.importorskip("datasets")
peft = pytest.importorskip("peft")

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
PAIRS = [("What is the amount due?", "$12.34"), ("invoice number", "20-1")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano with the settings that TRL needs, saved as anyone would save it."""
    # Noise of training would make a policy differ from its reference.
    model, processor = slime_vlm.load("nano", device="cpu", selector_noise=0.0, gate_noise=False, max_tiles=2)
    model.config.align_outputs = True
    processor.batch_layout = "images"
    processor.follow(model.config)
    path = tmp_path_factory.mktemp("nano")
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def options(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **more,
    }


def records(*names: str) -> Any:
    """Records of TRL's kinds, with the invoice as their image."""
    image = slime_vlm.open_image(INVOICE)
    rows = []
    for question, answer in PAIRS:
        user, assistant = [{"role": "user", "content": question}], [{"role": "assistant", "content": answer}]
        wrong = [{"role": "assistant", "content": "no"}]
        texts = {
            "messages": user + assistant,
            "prompt": user,
            "completion": assistant,
            "chosen": assistant,
            "rejected": wrong,
        }
        rows.append({**{name: texts[name] for name in names}, "images": [image]})
    return datasets.Dataset.from_list(rows)


def trained(trainer: Any) -> list[dict[str, float]]:
    """Train, and check that the steps were finite and changed weights."""
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 2
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in steps)
    changed = [
        name for name, value in trainer.model.named_parameters() if name in before and (value != before[name]).any()
    ]
    assert changed
    return steps


def own_loss(folder: Path) -> float:
    """The loss of the same records by this package's processor and model."""
    model, processor = slime_vlm.load(folder, device="cpu")
    processor.batch_layout = "views"
    conversations = [
        [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}]
        for question, answer in PAIRS
    ]
    images = [slime_vlm.open_image(INVOICE)] * len(PAIRS)
    with torch.no_grad():
        return float(model.train()(**processor.encode_conversations(conversations, images)).loss)


@pytest.fixture(scope="module")
def expected_loss(folder: Path) -> float:
    return own_loss(folder)


def test_sft_of_prompts_and_completions(folder: Path, tmp_path: Path, expected_loss: float) -> None:
    trainer = trl.SFTTrainer(
        model=str(folder),
        args=trl.SFTConfig(max_length=None, **options(tmp_path)),
        train_dataset=records("prompt", "completion"),
    )
    steps = trained(trainer)
    assert steps[0]["loss"] == pytest.approx(expected_loss, rel=0.05)
    assert steps[1]["loss"] < steps[0]["loss"]


def test_sft_of_messages_on_answers_alone(folder: Path, tmp_path: Path, expected_loss: float) -> None:
    trainer = trl.SFTTrainer(
        model=str(folder),
        args=trl.SFTConfig(max_length=None, assistant_only_loss=True, **options(tmp_path)),
        train_dataset=records("messages"),
    )
    steps = trained(trainer)
    assert steps[0]["loss"] == pytest.approx(expected_loss, rel=0.05)


def test_sft_of_messages_with_lora(folder: Path, tmp_path: Path) -> None:
    trainer = trl.SFTTrainer(
        model=str(folder),
        args=trl.SFTConfig(max_length=None, **options(tmp_path)),
        train_dataset=records("messages"),
        peft_config=peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    )
    trained(trainer)
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_dpo(folder: Path, tmp_path: Path) -> None:
    # Batch normalisation of an encoder that trains would make the policy differ from its reference, too.
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model.model.vision_tower.requires_grad_(False)
    trainer = trl.DPOTrainer(
        model=model,
        processing_class=AutoProcessor.from_pretrained(folder),
        args=trl.DPOConfig(max_length=None, **options(tmp_path)),
        train_dataset=records("prompt", "chosen", "rejected"),
    )
    steps = trained(trainer)
    # Before the first update model and reference are one, and the loss is that of a coin.
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_grpo(folder: Path, tmp_path: Path) -> None:
    def by_length(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = trl.GRPOTrainer(
        model=str(folder),
        args=trl.GRPOConfig(
            num_generations=2,
            max_completion_length=8,
            temperature=2.0,
            seed=1,
            **options(tmp_path, per_device_train_batch_size=4),
        ),
        train_dataset=records("prompt"),
        reward_funcs=by_length,
    )
    trained(trainer)
