"""Runs: batches answer like single questions, stored answers are not computed again, other runs are refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from slime_vlm.cli import app
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.evaluation.benchmarks import find_tasks
from slime_vlm.evaluation.generation import longest_answer, parse_generation
from slime_vlm.evaluation.images import open_benchmark_image, open_visual
from slime_vlm.evaluation.runner import RunOptions, run_benchmarks
from slime_vlm.inference.answering import ask
from slime_vlm.inference.batching import BatchAnswerer
from tests.conftest import tiny_config
from tests.evaluation.make_fixtures import FIXTURES, make_image
from tests.tiny_reader import save_tiny_reader, tiny_reader
from tests.training.launching import Launch
from tests.training.pages.test_join import model_of

TASKS = "mmmu,mme"
PLOTS = ("score_by_task.png", "accuracy_against_tokens.png", "accuracy_by_image_size.png")
# Answers of the tiny model never end by themselves.
SHORT = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reader(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    real = BatchAnswerer.answer
    monkeypatch.setattr(
        BatchAnswerer, "answer", lambda self, p, i, max_new_tokens, **gen: real(self, p, i, SHORT, **gen)
    )


def options(checkpoint: Path, out: Path, **changes: Any) -> RunOptions:
    values: dict[str, Any] = {"tasks": find_tasks(TASKS), "data": FIXTURES, "batch_size": 2, "device": "cpu"}
    return RunOptions(model=str(checkpoint), out=out, **{**values, **changes})


def run(checkpoint: Path, out: Path, **changes: Any) -> None:
    run_benchmarks(options(checkpoint, out, **changes), Console(file=io.StringIO()))


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted(out.glob("*/predictions*.jsonl"))
    return {str(file.parent.name): [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_seconds(inner) for name, inner in value.items() if name != "seconds"}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def results_of(out: Path) -> Any:
    return without_seconds(json.loads((out / "results.json").read_text()))


def test_batches_answer_as_single_questions_do() -> None:
    model, processor = tiny_reader()
    images = [open_benchmark_image(make_image(number)) for number in (2, 3, 4)]
    prompts = ["What is it?", "A longer question about a larger image: what colour is it?", "why"]
    given = BatchAnswerer(model, processor, batch_size=3).answer(prompts, [[image] for image in images], SHORT)
    for image, prompt, one in zip(images, prompts, given, strict=True):
        alone = ask(model, processor, image, prompt, max_new_tokens=SHORT)[0]
        assert one.text == alone.text
        counts = (one.tokens["global"], one.tokens["local"], one.tokens["kept"])
        assert counts == (alone.num_global, alone.num_local, alone.num_kept)
        assert one.seconds > 0
    assert given[1].tokens["prompt"] > given[2].tokens["prompt"]


def test_padding_behind_an_answer_is_no_text() -> None:
    """Not even if the padding token is an ordinary token."""
    model, processor = tiny_reader()
    images = [[open_benchmark_image(make_image(number))] for number in (2, 3, 4)]
    prompts, answerer = ["What is it?", "Which colour?", "why"], BatchAnswerer(model, processor, batch_size=3)
    said = [one.text for one in answerer.answer(prompts, images, SHORT)]
    # A letter that the last answer begins with ends one from now on.
    letter = next(letter for letter in said[2] if letter.isascii() and letter.isalnum())
    model.generation_config.eos_token_id = processor.tokenizer(letter, add_special_tokens=False).input_ids[-1]
    model.generation_config.pad_token_id = processor.tokenizer("e", add_special_tokens=False).input_ids[-1]
    given = answerer.answer(prompts, images, SHORT)
    assert len({one.tokens["new"] for one in given}) > 1
    for (image,), prompt, one in zip(images, prompts, given, strict=True):
        assert one.text == ask(model, processor, image, prompt, max_new_tokens=SHORT)[0].text


def test_a_model_of_characters_may_say_as_much_as_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DocVQA allows 32 tokens, and in this model each is a character."""
    assert longest_answer(tiny_config(), 32) == 32
    model, processor = model_of()
    assert longest_answer(model.config, 32) == 160
    allowed: list[int] = []
    said = BatchAnswerer.answer

    def answer(self: BatchAnswerer, prompts: Any, images: Any, most: int, **sampling: Any) -> Any:
        allowed.append(most)
        return said(self, prompts, images, most, **sampling)

    monkeypatch.setattr(BatchAnswerer, "answer", answer)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    given = {"tasks": find_tasks("docvqa"), "limit": 1}
    run(tmp_path / "model", tmp_path / "usual", **given)
    run(tmp_path / "model", tmp_path / "told", generation={"max_new_tokens": 7}, **given)
    assert allowed == [160, 7]


def test_videos_and_images_share_a_batch() -> None:
    model, processor = tiny_reader()
    clip = open_visual("videos/made_up_0.mp4", FIXTURES / "video_mme")
    image = open_benchmark_image(make_image(2))
    prompts = ["What does the square do?", "What is it?", "Neither of the two?"]
    given = BatchAnswerer(model, processor, batch_size=3).answer(prompts, [[clip], [image], []], SHORT)
    for shown, prompt, one in zip([clip, image], prompts[:2], given[:2], strict=True):
        alone = ask(model, processor, shown, prompt, max_new_tokens=SHORT)[0]
        assert (one.text, one.tokens["local"]) == (alone.text, alone.num_local)
    assert given[0].tokens["local"] == 8 * 4
    assert given[2].tokens["local"] == 0


def test_rows_with_several_images_or_none() -> None:
    model, processor = tiny_reader()
    first, second = (open_benchmark_image(make_image(number)) for number in (2, 3))
    answerer = BatchAnswerer(model, processor, batch_size=4)
    given = answerer.answer(["a <image>?", "b?", "c?"], [[first, second], [], [second]], SHORT)
    single = [answerer.answer([p], [i], SHORT)[0] for p, i in (("a ?", [first, second]), ("b?", []), ("c?", [second]))]
    assert [one.text for one in given] == [one.text for one in single]
    assert [one.tokens for one in given] == [one.tokens for one in single]
    assert given[1].tokens["global"] == 0
    assert given[0].tokens["global"] == 2 * given[2].tokens["global"]
    assert answerer.answer(["b?"], [[]], SHORT)[0].text == given[1].text


def test_a_full_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_reader()
    sizes = []
    real = type(model).generate

    def generate(self: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("full")
        return real(self, **kwargs)

    monkeypatch.setattr(type(model), "generate", generate)
    image = open_benchmark_image(make_image(0))
    answerer, room = BatchAnswerer(model, processor, batch_size=5), 1
    assert len(answerer.answer(["a"] * 5, [[image]] * 5, SHORT)) == 5
    assert sizes == [5, 2, 1, 1, 1, 1, 1]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        answerer.answer(["a"], [[image]], SHORT)


def test_resumed_at_any_line_equals_uninterrupted(checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = tmp_path / "whole"
    run(checkpoint, whole)
    assert {task: len(rows) for task, rows in rows_of(whole).items()} == {"mme": 6, "mmmu": 3}
    asked: list[str] = []
    real = BatchAnswerer.answer

    def answer(self: Any, prompts: Any, images: Any, length: int, **gen: Any) -> Any:
        asked.extend(prompts)
        return real(self, prompts, images, length, **gen)

    monkeypatch.setattr(BatchAnswerer, "answer", answer)
    for done in (1, 4):
        out = tmp_path / f"cut {done}"
        shutil.copytree(whole, out)
        for name in ("results.json", "results.md", *PLOTS):
            (out / name).unlink()
        # As a kill leaves it: the first task merged, the last one's part cut in the middle of a line.
        lines = (out / "mme" / "predictions.jsonl").read_text().splitlines(keepends=True)
        (out / "mme" / "predictions.jsonl").unlink()
        torn = "".join(lines[:done]) + lines[done][:40]
        (out / "mme" / "predictions.part0.jsonl").write_text(torn)
        asked.clear()
        run(checkpoint, out)
        assert len(asked) == 6 - done
        assert without_seconds(rows_of(out)) == without_seconds(rows_of(whole))
        assert results_of(out) == results_of(whole)
        assert all((out / name).stat().st_size > 5_000 for name in PLOTS)
    asked.clear()
    # All is there: not even the model is loaded.
    monkeypatch.setattr("slime_vlm.checkpoints.loading.load", lambda *a, **k: pytest.fail("the model was loaded"))
    run(checkpoint, whole)
    assert asked == []


def test_a_larger_limit_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, tmp_path, tasks=find_tasks("mme"), limit=2)
    before = rows_of(tmp_path)["mme"]
    assert "the first 2 of MME" in (tmp_path / "results.md").read_text()
    run(checkpoint, tmp_path, tasks=find_tasks("mme"), batch_size=3)
    after = rows_of(tmp_path)["mme"]
    # All that is there counts, so a smaller limit is none.
    run(checkpoint, tmp_path, tasks=find_tasks("mme"), limit=2)
    assert "the first 2 of MME" not in (tmp_path / "results.md").read_text()
    assert len(after) == 6
    # Seconds and all: they were not computed again.
    assert after[:2] == before


def test_parts_of_a_split_join(checkpoint: Path, tmp_path: Path) -> None:
    mme = find_tasks("mme")
    run(checkpoint, tmp_path / "whole", tasks=mme)
    run(checkpoint, tmp_path / "parts", tasks=mme, offset=4)
    # The last two of six, with the ids and places that they have in the split.
    assert [row["place"] for row in rows_of(tmp_path / "parts")["mme"]] == [4, 5]
    assert "Not all questions: 2 of MME, from number 5 on." in (tmp_path / "parts" / "results.md").read_text()
    run(checkpoint, tmp_path / "parts", tasks=mme, offset=1, limit=2)
    assert [row["place"] for row in rows_of(tmp_path / "parts")["mme"]] == [1, 2, 4, 5]
    run(checkpoint, tmp_path / "parts", tasks=mme)
    assert without_seconds(rows_of(tmp_path / "parts")) == without_seconds(rows_of(tmp_path / "whole"))
    assert "Not all questions" not in (tmp_path / "parts" / "results.md").read_text()
    with pytest.raises(DataError, match=r"MME: --offset 6, but .* holds 6 questions"):
        run(checkpoint, tmp_path / "none", tasks=mme, offset=6)


def test_predictions_alone(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(checkpoint), "--tasks", "mmmu", "--data", str(FIXTURES), "--device", "cpu"]
    done = CliRunner().invoke(app, ["eval", "run", *arguments, "--out", str(tmp_path), "--predict-only"])
    assert done.exit_code == 0, done.output
    assert f"`slime eval score {tmp_path} --out {tmp_path}` scores them" in done.output
    assert not (tmp_path / "results.json").exists()
    assert [row["score"] for row in rows_of(tmp_path)["mmmu"]] == [None] * 3
    scored = CliRunner().invoke(app, ["eval", "score", str(tmp_path), "--out", str(tmp_path)])
    assert scored.exit_code == 0, scored.output
    run(checkpoint, tmp_path / "scored", tasks=find_tasks("mmmu"))
    metrics = results_of(tmp_path)["tasks"]["mmmu"]["metrics"]
    assert metrics == results_of(tmp_path / "scored")["tasks"]["mmmu"]["metrics"]


def test_generation_settings_reach_the_model_and_bind_the_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, dict[str, Any]]] = []
    real = BatchAnswerer.answer

    def answer(self: Any, prompts: Any, images: Any, length: int, **gen: Any) -> Any:
        given.append((length, gen))
        return real(self, prompts, images, length, **gen)

    monkeypatch.setattr(BatchAnswerer, "answer", answer)
    mmmu = find_tasks("mmmu")
    generation = parse_generation(["temperature=0.9", "top_p=0.8", "max_new_tokens=5"])
    for out in ("a", "b"):
        run(checkpoint, tmp_path / out, tasks=mmmu, generation=generation)
    assert given[0] == (5, {"do_sample": True, "temperature": 0.9, "top_p": 0.8})
    # Sampled answers are repeated.
    assert without_seconds(rows_of(tmp_path / "a")) == without_seconds(rows_of(tmp_path / "b"))
    with pytest.raises(ConfigError, match="holds another run: generation was"):
        run(checkpoint, tmp_path / "a", tasks=mmmu)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature=1", "'temprature' is not a setting; did you mean 'temperature'"),
        ("zebra=1", "'zebra' is not a setting; valid names: max_new_tokens, "),
        ("num_beams=1.5", "expected a whole number of at least 1"),
        ("num_beams=true", "expected a whole number of at least 1"),
        ("top_p=2", "expected a number of at least 0.0 and at most 1.0"),
        ("max_new_tokens=", "expected a whole number of at least 1"),
        ("top_p=0.5", "greedy decoding has no top_p; add --gen temperature=0.7"),
    ],
)
def test_wrong_generation_settings(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_generation([text])


def test_generation_settings() -> None:
    assert parse_generation(["temperature=0", "num_beams=3"]) == {"num_beams": 3}
    assert parse_generation(["temperature=1"]) == {"do_sample": True, "temperature": 1.0}
    with pytest.raises(ConfigError, match="num_beams occurs twice"):
        parse_generation(["num_beams=3", "num_beams=2"])


def test_another_run_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    out, tasks = tmp_path / "out", find_tasks("mmmu")
    run(checkpoint, out, tasks=tasks, limit=1)
    other = save_tiny_reader(tmp_path / "other", max_local_tokens=3)
    with pytest.raises(ConfigError, match=r"holds another run: model was .* use another --out"):
        run(other, out, tasks=tasks)
    # The same name, another model.
    run(other, tmp_path / "second", tasks=tasks, limit=1)
    shutil.copytree(checkpoint, other, dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="fingerprint was"):
        run(other, tmp_path / "second", tasks=tasks, limit=1)
    with pytest.raises(ConfigError, match=r"overrides was \{\} and is"):
        run(checkpoint, out, tasks=tasks, overrides={"max_local_tokens": 3})
    data = tmp_path / "data" / "mmmu"
    shutil.copytree(FIXTURES / "mmmu", data)
    text = (data / "validation.jsonl").read_text()
    (data / "validation.jsonl").write_text(text.replace("What does", "What will"))
    with pytest.raises(ConfigError, match="question validation_Accounting_1 had another prompt"):
        run(checkpoint, out, tasks=tasks, data=tmp_path / "data")
    (data / "validation.jsonl").write_text(text + text)
    with pytest.raises(ConfigError, match="mmmu: records was"):
        run(checkpoint, out, tasks=tasks, data=tmp_path / "data")
    with pytest.raises(DataError, match="two records have the id validation_Accounting_1"):
        run(checkpoint, tmp_path / "third", tasks=tasks, data=tmp_path / "data")


def test_a_broken_image_names_its_question(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "pope", tmp_path / "pope")
    (tmp_path / "pope" / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"pope: question adversarial-2: .*1.png"):
        run(checkpoint, tmp_path / "out", tasks=find_tasks("pope"), data=tmp_path)


def test_server_splits_write_their_submission(checkpoint: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FIXTURES / "docvqa" / "validation.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "answers": None}) for row in rows]
    (tmp_path / "docvqa-test.jsonl").write_text("\n".join(lines))
    arguments = ["--model", str(checkpoint), "--tasks", "docvqa:test", "--data", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, ["eval", "run", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'out' / 'docvqa-test' / 'submission.json'} is for the server" in done.output
    entries = json.loads((tmp_path / "out" / "docvqa-test" / "submission.json").read_text())
    assert [entry["questionId"] for entry in entries] == [49153, 49154, 49155]
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| DocVQA | test | scored by the server | – | 3 |" in text
    assert not (tmp_path / "out" / PLOTS[0]).exists()


def test_commands(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--model", str(checkpoint), "--tasks", "mmmu", "--data", str(FIXTURES), "--limit", "1"]
    first = CliRunner().invoke(app, ["eval", "run", *arguments, "--out", str(out)])
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(app, ["eval", "run", *arguments, "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert again.output == first.output
    line = next(line for line in again.output.splitlines() if line.startswith("| MMMU |"))
    for predictions in (out, out / "mmmu" / "predictions.jsonl"):
        scored = CliRunner().invoke(app, ["eval", "score", str(predictions)])
        assert scored.exit_code == 0, scored.output
        assert line in scored.output
    other = CliRunner().invoke(app, ["eval", "score", str(out), "--rule", "lmms-eval"])
    assert "Scored by the rule of lmms-eval." in other.output
    assert "Scored by the rule of authors." in CliRunner().invoke(app, ["eval", "score", str(out)]).output
    unknown = CliRunner().invoke(app, ["eval", "score", str(out), "--rule", "mine"])
    assert isinstance(unknown.exception, ConfigError)
    assert "--rule mine: none of mmmu has it, known are lmms-eval" in str(unknown.exception)
    listed = CliRunner().invoke(app, ["eval", "tasks"])
    assert "| `vstar` | V* Bench |" in listed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--tasks", "pope"], "Missing option '--out'"),
        (["ablation"], "Usage:"),
        (["ablation", "pages", "--out", "x"], "unexpected extra argument"),
        (["--tasks", "pope"], "No such option"),
        (["suite"], "No such command 'suite'"),
        ([], "Usage:"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["eval", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "popes", "--out", "x"], "did you mean 'pope'"),
        (["--tasks", "pope", "--out", "x", "--batch-size", "many"], "--batch-size many: expected a whole number"),
        (["--tasks", "pope", "--out", "x", "--batch-size", "0"], "--batch-size 0"),
        (["--tasks", "pope", "--out", "x", "--hub-id", "pope"], "--hub-id pope=: expected TASK=OWNER/NAME"),
        (["--tasks", "pope", "--out", "x", "--hub-id", "mme=a/b"], "'mme' is not among --tasks pope"),
        (["--tasks", "pope", "--out", "x", "--set", "selector"], "--set selector: expected FIELD=VALUE"),
        (["--tasks", "pope", "--out", "x", "--judge-url", "http://h"], "--judge-model"),
    ],
)
def test_wrong_values(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["eval", "run", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_two_processes_share_the_questions(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["eval", "run", "--model", str(checkpoint), "--tasks", "scienceqa,mmmu", "--data", str(FIXTURES)]
    arguments += ["--device", "cpu", "--batch-size", "1"]
    said = Launch(tmp_path / "launch", [*arguments, "--out", str(tmp_path / "two")]).finish()
    assert said.count("| MMMU |") == 1
    alone = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.output
    assert [len(rows) for rows in rows_of(tmp_path / "two").values()] == [3, 3]
    for task, rows in rows_of(tmp_path / "one").items():
        for together, row in zip(rows_of(tmp_path / "two")[task], rows, strict=True):
            assert (together["id"], together["image_sizes"]) == (row["id"], row["image_sizes"])
            # In this process answers are cut short, see above; a cut may part a character.
            assert together["prediction"].startswith(row["prediction"].rstrip("\ufffd"))
            assert row["prediction"]
