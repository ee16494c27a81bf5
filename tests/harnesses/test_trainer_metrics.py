"""`Trainer.evaluate` of transformers on the shipped model, with no option set: predictions line up with labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

import slime_vlm
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
# Of every record: height and width of its part of the invoice, a question, an answer. Rows differ in all of them.
RECORDS = [
    (330, 300, "What is the amount due?", "$12.34"),
    (500, 700, "invoice number", "20-1"),
    (240, 620, "date", "2024-01-05"),
]
Rows = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def nano() -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    return slime_vlm.load("nano", device="cpu", max_tiles=4)


@pytest.fixture(scope="module")
def records() -> list[tuple[Image.Image, str, str]]:
    page = slime_vlm.open_image(INVOICE).convert("RGB")
    return [(page.crop((0, 0, width, height)), question, answer) for height, width, question, answer in RECORDS]


def encoded(processor: SlimeProcessor, records: list[tuple[Image.Image, str, str]]) -> dict[str, Tensor]:
    conversations = [
        [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}]
        for _, question, answer in records
    ]
    return dict(processor.encode_conversations(conversations, [image for image, _, _ in records]))


def share_right(predicted: Any, labels: Any) -> tuple[int, int]:
    """Labels that the token before them predicts, and labels."""
    counted = labels[:, 1:] != -100
    return int((predicted[:, :-1] == labels[:, 1:])[counted].sum()), int(counted.sum())


@pytest.fixture(scope="module")
def expected(nano: Any, records: Any) -> tuple[float, float]:
    """Share of predicted answer tokens and mean loss of a token, by direct calls with one row each."""
    model, processor = nano
    right = count = loss = 0.0
    for record in records:
        inputs = encoded(processor, [record])
        with torch.no_grad():
            outputs = model.eval()(**inputs)
        assert outputs.logits.shape[1] < inputs["input_ids"].shape[1], "nothing was dropped, so nothing is compared"
        row_right, row_count = share_right(outputs.logits.argmax(-1), outputs.labels)
        right, count, loss = right + row_right, count + row_count, loss + float(outputs.loss) * row_count
    assert 0 < right < count
    return right / count, loss / count


def trainer_of(nano: Any, records: Any, folder: Path, **arguments: Any) -> Trainer:
    model, processor = nano
    names = ("compute_metrics", "preprocess_logits_for_metrics", "compute_loss_func")
    options = {name: arguments.pop(name, None) for name in names}
    settings = {"per_device_eval_batch_size": 3, "report_to": [], "use_cpu": True, "disable_tqdm": True, **arguments}
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), remove_unused_columns=False, **settings),
        eval_dataset=records,
        data_collator=lambda rows: encoded(processor, rows),
        **options,
    )


def argmax(logits: Tensor, labels: Tensor) -> Tensor:
    assert logits.shape[:2] == labels.shape
    return logits.argmax(-1)


@pytest.mark.parametrize(
    ("batch_size", "preprocess", "padding_side"), [(2, None, "right"), (2, argmax, "left"), (3, None, "left")]
)
def test_predictions_line_up_with_labels(
    nano: Any,
    records: Any,
    expected: tuple[float, float],
    tmp_path: Path,
    batch_size: int,
    preprocess: Callable[..., Any] | None,
    padding_side: str,
) -> None:
    nano[1].tokenizer.padding_side = padding_side

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        predicted = prediction.predictions if preprocess else prediction.predictions.argmax(-1)
        assert predicted.shape == prediction.label_ids.shape
        right, count = share_right(predicted, prediction.label_ids)
        return {"share": right / count}

    trainer = trainer_of(
        nano,
        records,
        tmp_path,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=preprocess,
        per_device_eval_batch_size=batch_size,
    )
    measured = trainer.evaluate()
    assert measured["eval_share"] == pytest.approx(expected[0])
    if batch_size == len(records):
        assert measured["eval_loss"] == pytest.approx(expected[1], rel=1e-3)


def test_metrics_of_one_batch_at_a_time(nano: Any, records: Any, expected: Any, tmp_path: Path) -> None:
    totals = np.zeros(2)

    def metrics(prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        assert prediction.predictions.shape[:2] == prediction.label_ids.shape
        totals[:] += share_right(prediction.predictions.argmax(-1), prediction.label_ids)
        return {"share": totals[0] / totals[1]} if compute_result else {}

    trainer = trainer_of(
        nano,
        records,
        tmp_path,
        compute_metrics=metrics,
        batch_eval_metrics=True,
        per_device_eval_batch_size=2,
    )
    assert trainer.evaluate()["eval_share"] == pytest.approx(expected[0])


def test_a_loss_function_of_the_caller_gets_both(nano: Any, records: Any, expected: Any, tmp_path: Path) -> None:
    # Trainer then keeps the labels to itself.
    def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        assert outputs.logits.shape[:2] == labels.shape
        summed = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        return summed / num_items_in_batch

    trainer = trainer_of(nano, records, tmp_path, compute_loss_func=loss_of)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected[1], rel=1e-3)


def test_a_direct_call_keeps_merged_rows(nano: Any, records: Any) -> None:
    model, processor = nano
    inputs = encoded(processor, records)
    with torch.no_grad():
        merged = model.eval()(**inputs)
        aligned = model(**inputs, align_outputs=True)
        alone = model(**inputs, num_items_in_batch=3, loss_only=True)
    shape = inputs["input_ids"].shape
    assert merged.logits.shape[1] < shape[1]
    assert aligned.logits.shape[:2] == aligned.labels.shape == shape
    assert alone.logits is None
    torch.testing.assert_close(aligned.loss, merged.loss)
