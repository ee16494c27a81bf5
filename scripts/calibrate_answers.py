"""Calibrate how sure a model is of its answers: fit `answer_calibration` on documents, and measure it on others.

Half of the documents fit, and the others measure. The checkpoint's config is changed in place.

    slime pages --source browser --split heldout --look mixed --count 80 --seed 600 --fonts runs/fonts --out runs/fit
    python scripts/calibrate_answers.py runs/joined runs/fit/pages.jsonl --fit
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

import slime_vlm
from slime_vlm.evaluation.metrics import exact_match
from slime_vlm.inference.answering import encode
from slime_vlm.inference.confidence import calibrated, fit_calibration

BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)

Asked = list[tuple[float, bool]]
"""Mean probability of every answer of a document, and whether it is right."""


def answers(model_name: str, records: Path) -> list[Asked]:
    """Ask every question of the documents."""
    model, processor = slime_vlm.load(model_name)
    model.config.answer_calibration = None
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    found = []
    for record in track(lines, "documents"):
        with Image.open(records.parent / record["image"]) as image:
            encoded = encode(model, processor, image)
        turns = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        asked = []
        for question, expected in zip(turns[::2], turns[1::2], strict=True):
            answer = encoded.ask(question, max_new_tokens=80)
            asked.append((answer.confidence, exact_match(answer.text, expected) == 1.0))
        found.append(asked)
    return found


def flat(documents: Sequence[Asked]) -> tuple[list[float], list[bool]]:
    """Return the means and the rights of all answers."""
    pairs = [pair for asked in documents for pair in asked]
    return [mean for mean, _ in pairs], [right for _, right in pairs]


def report(title: str, confidence: np.ndarray, right: np.ndarray) -> None:
    """Print how many answers of each confidence are right, and the mean difference between both."""
    print(f"{title}: {len(right)} answers, {right.mean():.2f} right")  # noqa: T201
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = (confidence >= low) & ((confidence < high) | (high == 1.0))
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
            print(  # noqa: T201
                f"  {low:.1f} to {high:.1f}: {inside.sum():4d} answers, confidence {confidence[inside].mean():.2f}, "
                f"right {right[inside].mean():.2f}"
            )
    print(f"  mean difference {error:.3f}")  # noqa: T201


def main() -> None:
    """Ask, fit, measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("records", type=Path, help="pages.jsonl of `slime pages`, documents that no training has seen")
    parser.add_argument("--fit", action="store_true", help="fit and write config.json; otherwise measure what it has")
    options = parser.parse_args()
    documents = answers(options.model, options.records)
    config = Path(options.model) / "config.json"
    line = slime_vlm.SlimeConfig.from_pretrained(options.model).answer_calibration if config.exists() else None
    if options.fit:
        means, right = flat(documents[::2])
        if len(set(right)) < 2:
            parser.error(
                f"{options.records} has answers of one kind alone, expected right and wrong ones; add documents"
            )
        line = list(fit_calibration(means, right))
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields["answer_calibration"] = line
        config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        print(f"answer_calibration: slope {line[0]:.3f}, offset {line[1]:.3f}, written to {config}")  # noqa: T201
    means, right = flat(documents[1::2] if options.fit else documents)
    report("mean probability", np.array(means), np.array(right))
    if line is not None:
        report("calibrated", np.array([calibrated(mean, line) for mean in means]), np.array(right))


if __name__ == "__main__":
    main()
