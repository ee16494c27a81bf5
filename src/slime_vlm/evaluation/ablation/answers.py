"""Answer all questions about an image under one setting. What a setting does not change is computed once."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from slime_vlm.evaluation.ablation.memory import measure_growth
from slime_vlm.evaluation.ablation.samples import Sample, row_id
from slime_vlm.evaluation.ablation.settings import Setting
from slime_vlm.evaluation.generation import SHORT_ANSWER, longest_answer
from slime_vlm.evaluation.metrics import exact_match
from slime_vlm.evaluation.metrics.anls import anls
from slime_vlm.evaluation.predictions import Row
from slime_vlm.inference.answering import EncodedImage, encode

if TYPE_CHECKING:
    from slime_vlm.evaluation.ocr_baseline.reader import OcrReader
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor


@dataclass
class _Encoded:
    """An encoded image, with the time and memory that encoding took."""

    encoded_image: EncodedImage
    image: Image.Image
    seconds: float
    megabytes: float | None


class AblationAnswerer:
    """Ask about one image after another, each under any number of settings.

    Args:
        model: The model. Its config is changed while a setting is asked, and restored afterwards.
        processor: The model's processor.
        reader: OCR engine of the baseline, or None to run without the baseline.
    """

    def __init__(
        self, model: SlimeForConditionalGeneration, processor: SlimeProcessor, reader: OcrReader | None = None
    ) -> None:
        self.model, self.processor, self.reader = model, processor, reader
        self._current: Sample | None = None
        self._image: Image.Image | None = None
        self._encoded: dict[str, _Encoded] = {}

    def answer(self, sample: Sample, setting: Setting, kept_before: Sequence[int]) -> list[Row]:
        """Answer every question of a sample.

        Args:
            sample: An image and its questions. Consecutive calls with the same sample reuse its encodings.
            setting: How to answer.
            kept_before: Number of local tokens that the reference kept for each question, for `Setting.as_many`.

        Returns:
            One row per question, without its `place` in the run.
        """
        if sample is not self._current:
            if self._current is None:
                self._warm_up(sample)
            self._current, self._image, self._encoded = sample, None, {}
        if setting.ocr:
            return self._read(sample)
        config = dict(setting.config)
        encoded = self._encode(sample, setting)
        if setting.share is not None:
            config["max_local_tokens"] = max(1, round(setting.share * encoded.encoded_image.tokens.num_local_tokens))
        return [
            self._ask(sample, setting, config, encoded, number, kept_before) for number in range(len(sample.questions))
        ]

    # The model -------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        sample: Sample,
        setting: Setting,
        config: dict[str, Any],
        encoded: _Encoded,
        number: int,
        kept_before: Sequence[int],
    ) -> Row:
        question = sample.questions[number].text
        kept: Tensor | None = None
        if setting.as_many == "best":
            config = {**config, "max_local_tokens": kept_before[number]}
        elif setting.as_many == "random":
            total = encoded.encoded_image.tokens.num_local_tokens
            kept = random_tokens(total, kept_before[number], f"{sample.id} {number}").to(self.model.device)
        longest = longest_answer(self.model.config, SHORT_ANSWER)
        with _changed(self.model, self.processor, config), measure_growth(self.model.device) as growth:
            start = time.perf_counter()
            # A fresh copy has no cached prefix, so that every setting pays for its whole prompt.
            answer = replace(encoded.encoded_image).ask(question, max_new_tokens=longest, kept=kept)
            seconds = time.perf_counter() - start
        tokens = {"global": answer.num_global, "local": answer.num_local, "kept": answer.num_kept}
        megabytes = None if growth.megabytes is None else max(growth.megabytes, encoded.megabytes or 0.0)
        return _row(
            sample, setting.name, number, answer.text, tokens, encoded.seconds, seconds, megabytes, encoded.image
        )

    def _warm_up(self, sample: Sample) -> None:
        """Ask one question and discard the answer, so that one-time set-up does not count for the first setting."""
        encode(self.model, self.processor, sample.image()).ask(sample.questions[0].text, max_new_tokens=1)

    def _encode(self, sample: Sample, setting: Setting) -> _Encoded:
        if setting.side is not None:
            return self._measured_encode(
                sample.rendered(setting.side) if setting.rendered else sample.resized(setting.side)
            )
        views = setting.config.get("views", self.model.config.views)
        if views not in self._encoded:
            with _changed(self.model, self.processor, {"views": views, "max_local_tokens": None}):
                self._encoded[views] = self._measured_encode(self._unchanged(sample))
        encoded = self._encoded[views]
        if "gate" not in setting.config or views == "local":
            return encoded
        # Tiles do not pass the gate. Only the global view is encoded again.
        fields = {"views": "global", "gate": setting.config["gate"], "max_local_tokens": None}
        with _changed(self.model, self.processor, fields):
            other = encode(self.model, self.processor, self._unchanged(sample)).tokens
        tokens = replace(encoded.encoded_image.tokens, gates=other.gates, global_tokens=other.global_tokens)
        return replace(encoded, encoded_image=replace(encoded.encoded_image, tokens=tokens))

    def _measured_encode(self, image: Image.Image) -> _Encoded:
        with measure_growth(self.model.device) as growth:
            start = time.perf_counter()
            encoded = encode(self.model, self.processor, image)
            if self.model.device.type == "cuda":
                # Without this, a GPU might still be encoding while the first question is timed.
                torch.cuda.synchronize(self.model.device)
            seconds = time.perf_counter() - start
        return _Encoded(encoded, image, seconds, growth.megabytes)

    def _unchanged(self, sample: Sample) -> Image.Image:
        if self._image is None:
            self._image = sample.image()
        return self._image

    # The OCR baseline ------------------------------------------------------------------------------------------------

    def _read(self, sample: Sample) -> list[Row]:
        from slime_vlm.evaluation.ocr_baseline.answering import answer_from_text

        assert self.reader is not None
        image = self._unchanged(sample)
        with measure_growth(torch.device("cpu")) as growth:
            start = time.perf_counter()
            texts = self.reader.read(image)
            reading = time.perf_counter() - start
        rows = []
        for number, question in enumerate(sample.questions):
            start = time.perf_counter()
            text = answer_from_text(question.text, texts)
            seconds = time.perf_counter() - start
            rows.append(_row(sample, "ocr", number, text, {}, reading, seconds, growth.megabytes, image))
        return rows


def random_tokens(total: int, count: int, name: str) -> Tensor:
    """Mark `count` of `total` tokens at random, bool [total]. The same name gives the same tokens."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    marks = torch.zeros(total, dtype=torch.bool)
    marks[torch.randperm(total, generator=generator)[:count]] = True
    return marks


@contextmanager
def _changed(
    model: SlimeForConditionalGeneration, processor: SlimeProcessor, fields: Mapping[str, Any]
) -> Iterator[None]:
    """Change fields of the model's config within a `with` block, and keep its processor in step."""
    config = model.config
    before = {name: getattr(config, name) for name in fields}
    try:
        for name, value in fields.items():
            setattr(config, name, value)
        config.check()
        processor.follow(config)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
        processor.follow(config)


def _row(
    sample: Sample,
    setting: str,
    number: int,
    text: str,
    tokens: dict[str, int],
    encoding: float,
    answering: float,
    megabytes: float | None,
    image: Image.Image,
) -> Row:
    asked = sample.questions[number]
    return {
        "task": "pages",
        "id": row_id(sample, setting, number),
        "image": sample.id,
        "seed": sample.seed,
        "setting": setting,
        "group": asked.group,
        "prompt": asked.text,
        "prediction": text,
        "target": {"answer": asked.answer},
        "score": exact_match(text, asked.answer),
        "anls": round(anls(text, [asked.answer]), 4),
        "tokens": tokens,
        "seconds": {"encode": round(encoding, 4), "answer": round(answering, 4)},
        "megabytes": None if megabytes is None else round(megabytes, 1),
        "image_size": [image.height, image.width],
    }
