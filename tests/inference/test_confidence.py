from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

import slime_vlm
from slime_vlm.errors import ConfigError
from slime_vlm.inference.answering import encode
from slime_vlm.inference.confidence import ProbabilityRecorder, calibrated, fit_calibration
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.pages import PageSettings, make_page, render


def test_means_by_hand() -> None:
    """Rows of logits log(3) and 0 give 3/4; a row that ends early does not count what follows."""
    recorder = ProbabilityRecorder()
    ids = torch.zeros(2, 1, dtype=torch.long)
    scores = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    assert recorder(ids, scores) is scores
    recorder(ids, torch.tensor([[0.0, 0.0], [9.0, -torch.inf]]))
    assert recorder.means([2, 1]) == pytest.approx([0.625, 0.5])


def test_calibration_by_hand() -> None:
    assert calibrated(0.9, None) == 0.9
    # The logit of 0.9 is log 9; half of it is log 3.
    assert calibrated(0.9, (0.5, 0.0)) == pytest.approx(0.75)
    assert calibrated(0.5, (2.0, math.log(4.0))) == pytest.approx(0.8)
    # How certain the characters were read: half of the logit of 0.9 again.
    assert calibrated(0.5, (1.0, 0.0, 0.5), 0.9) == pytest.approx(0.75)
    assert calibrated(0.5, (1.0, 0.0, 0.5), None) == calibrated(0.5, (1.0, 0.0), 0.1) == 0.5
    assert 0.0 < calibrated(0.0, (1.0, 0.0)) < calibrated(1.0, (1.0, 0.0)) < 1.0


def test_a_fit_finds_the_line_again() -> None:
    rng = np.random.default_rng(0)
    means = rng.uniform(0.05, 0.999, 4000)
    right = rng.random(4000) < np.array([calibrated(mean, (0.6, -0.8)) for mean in means])
    slope, offset = fit_calibration(means.tolist(), right.tolist())
    assert slope == pytest.approx(0.6, abs=0.1)
    assert offset == pytest.approx(-0.8, abs=0.15)


def test_answers_tell_their_confidence() -> None:
    """Alone and together, and calibrated: the values are those of the forward pass."""
    model, processor = slime_vlm.load("nano", device="cpu", dtype=torch.float32)
    page = make_page(3, PageSettings(split="heldout"))
    encoded = encode(model, processor, Image.fromarray(render(page)))
    questions = [question.text for question in page.questions][:2]
    alone = [encoded.ask(question) for question in questions]
    together = encoded.ask_together(questions)
    assert all(0.0 < answer.confidence <= 1.0 for answer in alone)
    for one, other in zip(alone, together, strict=True):
        assert other.text == one.text
        assert other.confidence == pytest.approx(one.confidence, abs=1e-4)
    model.config.answer_calibration = [0.5, -1.0]
    assert encoded.ask(questions[0]).confidence == pytest.approx(calibrated(alone[0].confidence, (0.5, -1.0)), abs=1e-6)


def test_a_fit_with_readings_finds_all_three() -> None:
    rng = np.random.default_rng(1)
    means, readings = rng.uniform(0.05, 0.999, 6000), rng.uniform(0.05, 0.999, 6000)
    pairs = zip(means, readings, strict=True)
    right = rng.random(6000) < np.array([calibrated(mean, (0.6, -0.8, 1.2), reading) for mean, reading in pairs])
    assert fit_calibration(means.tolist(), right.tolist(), readings.tolist()) == pytest.approx(
        (0.6, -0.8, 1.2), abs=0.15
    )


@pytest.mark.parametrize("line", [[1.0], [1.0, 0.0, 0.5, 1.0], [0.0, 1.0], [1.0, math.inf]])
def test_a_calibration_that_is_none(line: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"answer_calibration is .* expected a positive slope and an offset"):
        SlimeConfig(answer_calibration=line)
