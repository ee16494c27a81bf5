"""lmms-eval finds the model and runs it. Skipped if it is not installed, see docs/evaluation.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed here, see docs/evaluation.md")

from lmms_eval.api.instance import Instance

import slime_vlm
from slime_vlm.evaluation.images import open_benchmark_image
from slime_vlm.harnesses.lmms_eval import SlimeVlm
from slime_vlm.inference.answering import ask
from slime_vlm.media import open_image
from slime_vlm.pages import PageSettings, write_pages
from tests.evaluation.make_fixtures import make_image
from tests.tiny_reader import save_tiny_reader

ROOT = Path(__file__).parents[2]
# Answers of the tiny model never end by themselves.
SHORT = 6


def test_finds_the_model() -> None:
    from lmms_eval.models import get_model

    if "slime_vlm" not in entry_points(group="lmms_eval.models").names:
        pytest.skip("the package is on the path but not installed, so it has no entry points")
    assert get_model("slime_vlm") is SlimeVlm
    # The authors' code keeps its name.
    assert get_model("slime") is not SlimeVlm


def test_command_answers_as_ask_does(tmp_path: Path) -> None:
    """Acceptance: the shipped model on the example's task, four at a time, against one question after another."""
    if "slime_vlm" not in entry_points(group="lmms_eval.models").names:
        pytest.skip("the package is on the path but not installed, so it has no entry points")
    settings = PageSettings(kinds={"form": 1.0}, tiles=(1, 3), page_scale=(1.0, 1.2), split="heldout", questions=5)
    write_pages(tmp_path / "pages", 2, 7, settings)
    command = [sys.executable, "-m", "lmms_eval", "--model", "slime_vlm", "--tasks", "slime_pages", "--batch_size", "4"]
    command += ["--model_args", "pretrained=nano,dtype=float32,device=cpu", "--output_path", "out", "--log_samples"]
    command += ["--include_path", str(ROOT / "examples" / "lmms_eval")]
    settings_of_hub = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **settings_of_hub}, capture_output=True, text=True, check=False
    )
    files = list((tmp_path / "out").rglob("*samples_slime_pages.jsonl"))
    assert len(files) == 1, done.stdout + done.stderr
    samples = sorted(map(json.loads, files[0].read_text().splitlines()), key=lambda sample: sample["doc_id"])

    model, processor = slime_vlm.load("nano", "cpu", "float32")
    expected = []
    for line in (tmp_path / "pages" / "pages.jsonl").read_text().splitlines():
        record = json.loads(line)
        texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"][::2]]
        page = open_image(tmp_path / "pages" / record["image"])
        expected += [(one.question, one.text) for one in ask(model, processor, page, texts, max_new_tokens=24)]
    assert len(expected) == 10
    assert [(sample["input"], sample["filtered_resps"]) for sample in samples] == expected
    assert len({answer for _, answer in expected}) > 2, "the comparison needs answers that differ"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> SlimeVlm:
    folder = save_tiny_reader(tmp_path_factory.mktemp("model"))
    return SlimeVlm(str(folder), device="cpu", dtype="float32", batch_size="4")


def request(adapter: SlimeVlm, number: int, text: str, images: list[Any] | None, settings: dict[str, Any]) -> Instance:
    adapter.task_dict.setdefault("task", {"test": {}})["test"][number] = {"images": images}
    arguments = (text, settings, lambda record: record["images"], number, "task", "test")
    return Instance("generate_until", arguments, 0, {"task": "task", "doc_id": number, "repeats": 1})


def test_requests_keep_their_order_settings_and_images(adapter: SlimeVlm) -> None:
    short, long = {"max_new_tokens": 3, "until": []}, {"max_new_tokens": SHORT, "until": []}
    requests = [
        request(adapter, 0, "What is it?", [make_image(2)], dict(short)),
        request(adapter, 1, "And this?", [make_image(3)], dict(long)),
        request(adapter, 2, "Which of the two?", [make_image(4), make_image(2)], dict(long)),
        request(adapter, 3, "No image at all", None, dict(short)),
    ]
    together = adapter.generate_until(requests)
    alone = [adapter.generate_until([one])[0] for one in requests]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.token_counts.output_tokens for one in together] == [3, SHORT, SHORT, 3]
    model, processor = adapter._answerer.model, adapter._answerer.processor
    asked = ask(model, processor, open_benchmark_image(make_image(3)), "And this?", max_new_tokens=SHORT)
    assert together[1].text == asked[0].text
    counts = together[2].token_counts.input_tokens, together[3].token_counts.input_tokens
    assert counts[0] > counts[1]


def test_answers_are_cut(adapter: SlimeVlm) -> None:
    settings: dict[str, Any] = {"max_new_tokens": SHORT, "until": []}
    whole = adapter.generate_until([request(adapter, 0, "What is it?", [make_image(2)], settings)])[0].text
    settings["until"] = [whole[2]]
    cut = adapter.generate_until([request(adapter, 0, "What is it?", [make_image(2)], settings)])[0].text
    assert cut == whole.partition(whole[2])[0].strip()


def test_what_is_not_supported_says_so(adapter: SlimeVlm) -> None:
    with pytest.raises(NotImplementedError, match="generate_until"):
        adapter.loglikelihood([])
    with pytest.raises(NotImplementedError, match="several rounds"):
        adapter.generate_until_multi_round([])
