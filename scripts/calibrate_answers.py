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

Asked = list[tuple[float, float, bool]]
"""Of every answer of a document its mean probability, how certain it was read, and whether it is right."""


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
            reading = 1.0 if answer.reading is None else answer.reading
            asked.append((answer.confidence, reading, exact_match(answer.text, expected) == 1.0))
        found.append(asked)
    return found


def flat(documents: Sequence[Asked]) -> tuple[list[float], list[float], list[bool]]:
    """Return the means, the readings and the rights of all answers."""
    means, readings, right = zip(*(answer for asked in documents for answer in asked), strict=True)
    return list(means), list(readings), list(right)


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
    higher = confidence[right][:, None] > confidence[~right]
    ranked = f"; a right answer is above a wrong one in {higher.mean():.2f} of pairs" if higher.size else ""
    print(f"  mean difference {error:.3f}{ranked}")  # noqa: T201


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
        means, readings, right = flat(documents[::2])
        if len(set(right)) < 2:
            parser.error(
                f"{options.records} has answers of one kind alone, expected right and wrong ones; add documents"
            )
        # A model that names no characters is certain of all.
        line = list(fit_calibration(means, right, readings if min(readings) < 1.0 else None))
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields["answer_calibration"] = line
        config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        print(f"answer_calibration: {', '.join(f'{number:.3f}' for number in line)}, written to {config}")  # noqa: T201
    means, readings, right = flat(documents[1::2] if options.fit else documents)
    report("mean probability", np.array(means), np.array(right))
    if line is not None:
        pairs = zip(means, readings, strict=True)
        report("calibrated", np.array([calibrated(mean, line, reading) for mean, reading in pairs]), np.array(right))


if __name__ == "__main__":
    main()
