"""Every task on its fixture: records in the benchmark's own format, prompt, scorer, summary."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from slime_vlm.errors import ConfigError, DataError, MediaError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Benchmark, Question, Scored, Task, find_tasks, task_table
from slime_vlm.evaluation.benchmarks.prompts import LETTER, LETTER_CN, SHORT_ANSWER
from slime_vlm.evaluation.images import open_benchmark_image, open_visual
from slime_vlm.evaluation.records import load_records
from slime_vlm.evaluation.submission import write_submission
from slime_vlm.media import Clip
from tests.evaluation.make_fixtures import FIXTURES
from tests.evaluation.right_answers import right_answer

ROOT = Path(__file__).parent.parent.parent
# Fixtures hold two categories of perception and one of cognition, and three of a thousand questions.
FULL_MARKS_HERE = {"mme": 400.0, "ocrbench": 3.0}
SUFFIXES = {
    "hr_bench_4k": "\nAnswer the option letter directly.",
    "hr_bench_8k": "\nAnswer the option letter directly.",
    "mme_realworld": "\nThe best answer is:",
    "mme_realworld_cn": "\n最佳答案为： ",
    "video_mme": "\nThe best answer is:",
    "mmbench_cn": LETTER_CN,
    "mmstar": "\nAnswer with the option's letter from the given choices directly",
    "mmmu_pro_standard": "\nAnswer with the option letter from the given choices directly.",
    "mmmu_pro_vision": " where LETTER is one of options.",
    **dict.fromkeys(("realworldqa", "hallusion_bench", "charxiv_reasoning", "charxiv_descriptive", "ocrbench_v2"), ""),
    **dict.fromkeys(("mmbench", "scienceqa", "seed_bench", "vstar"), LETTER),
    # Questions as they come.
    **dict.fromkeys(
        ("amber", "amber_generative", "mathvista", "mathverse", "ocrbench", "mm_vet", "llava_bench", "mmhal"), ""
    ),
}

every_benchmark = pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))


def questions_of(benchmark: Benchmark, data: Path = FIXTURES) -> tuple[list[Question], Path | None]:
    records = load_records(Task(benchmark, benchmark.source.split), data)
    return [benchmark.ask(row, index) for index, row in enumerate(records.rows)], records.folder


def scored(benchmark: Benchmark, predictions: list[str]) -> list[Scored]:
    questions, _ = questions_of(benchmark)
    return [
        Scored(q.id, text, q.target, benchmark.score(text, q.target))
        for q, text in zip(questions, predictions, strict=True)
    ]


def test_there_is_a_fixture_for_every_task_and_no_other() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == set(BENCHMARKS)
    assert len(BENCHMARKS) == 40
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 300_000


@every_benchmark
def test_records_become_questions(benchmark: Benchmark) -> None:
    questions, folder = questions_of(benchmark)
    assert len(questions) >= 3
    assert len({question.id for question in questions}) == len(questions)
    seen = [open_visual(image, folder) for question in questions for image in question.images]
    assert seen, "no question has an image"
    assert {image.mode for one in seen for image in (one.frames if isinstance(one, Clip) else [one])} == {"RGB"}
    # What scoring needs is stored beside the predictions.
    assert [json.loads(json.dumps(question.target)) for question in questions] == [q.target for q in questions]


@every_benchmark
def test_prompts(benchmark: Benchmark) -> None:
    questions, _ = questions_of(benchmark)
    suffix = SUFFIXES.get(benchmark.name, SHORT_ANSWER)
    if benchmark.name == "mmmu":
        assert [q.prompt.endswith(f"\n{LETTER}") for q in questions] == [True, True, False]
        suffix = ""
    for question in questions:
        assert question.prompt.strip()
        assert question.prompt.endswith(suffix)
        assert "nan" not in question.prompt.split()


@every_benchmark
def test_right_answers_get_full_marks(benchmark: Benchmark) -> None:
    questions, _ = questions_of(benchmark)
    rows = scored(benchmark, [right_answer(question.target) for question in questions])
    if benchmark.name in {"llava_bench", "mmhal", "charxiv_reasoning", "charxiv_descriptive"}:
        assert {row.score for row in rows} == {None}
        assert benchmark.summarise(rows) == {}
        return
    assert [row.score for row in rows] == [1.0] * len(rows)
    metrics = benchmark.summarise(rows)
    name = benchmark.main or next(iter(metrics))
    assert metrics[name] == pytest.approx(FULL_MARKS_HERE.get(benchmark.name, 100.0))


@every_benchmark
def test_the_same_from_parquet(benchmark: Benchmark, tmp_path: Path) -> None:
    task = Task(benchmark, benchmark.source.split)
    records = load_records(task, FIXTURES)
    rows = [dict(row) for row in list(records.rows)[:: benchmark.questions]]
    for row in rows:
        # MathVista and MATH-Vision have a path beside the image itself.
        images = (
            ("decoded_image",) if "decoded_image" in row else ("image", "bytes", "image_path", "image_1", "image_2")
        )
        for name in images:
            if isinstance(row.get(name), str):
                row[name] = _as_hub_image(row[name], records.folder)
    path = tmp_path / benchmark.name / "data" / f"{benchmark.source.split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    again, _ = questions_of(benchmark, tmp_path)
    before, _ = questions_of(benchmark)
    assert [(q.id, q.prompt, q.target) for q in again] == [(q.id, q.prompt, q.target) for q in before]
    # Videos are files beside the table, in every form of it.
    images = [image for question in again for image in question.images if not str(image).endswith(".mp4")]
    assert all(open_benchmark_image(image).mode == "RGB" for image in images)


def _as_hub_image(text: str, folder: Path | None) -> dict[str, object] | None:
    assert folder is not None
    if not text:
        return None
    files = [folder / text, folder / "image" / text] if len(text) < 100 else []
    found = next((file for file in files if file.is_file()), None)
    return {"bytes": found.read_bytes() if found else base64.b64decode(text), "path": None}


def test_prompts_word_by_word() -> None:
    def prompt(name: str, index: int = 0) -> str:
        return questions_of(BENCHMARKS[name])[0][index].prompt

    assert prompt("scienceqa") == (
        "Context: Look at the picture.\nWhich of these is red?\nA. the sky\nB. the square"
        "\nAnswer with the option's letter from the given choices directly."
    )
    assert prompt("textvqa_ocr") == (
        "What number is written?\nReference OCR token: 0, ACME\nAnswer the question using a single word or phrase."
    )
    assert prompt("mmbench").startswith("A hint.\nWhat colour is the square?\nA. red\nB. blue\nC. green\nD. black\n")
    # Neither the hint nor the options that are missing.
    assert prompt("mmbench", 2).startswith("What colour is the square? (2)\nA. red\nB. blue\nAnswer")
    assert prompt("mme") == "Is there a square in this image?\nAnswer the question using a single word or phrase."
    assert "respond with 'Unanswerable'.\nAnswer" in prompt("vizwiz")


def test_several_images_and_none() -> None:
    mmmu, _ = questions_of(BENCHMARKS["mmmu"])
    assert [len(question.images) for question in mmmu] == [1, 2, 1]
    assert [len(q.images) for q in questions_of(BENCHMARKS["seed_bench"])[0]] == [1, 1, 2]
    assert [len(q.images) for q in questions_of(BENCHMARKS["mathverse"])[0]] == [1, 1, 0]
    rows = scored(BENCHMARKS["scienceqa"], ["B", "B", "B"])
    # The third has no image and does not count.
    assert BENCHMARKS["scienceqa"].summarise(rows)["accuracy"] == 50.0


def test_pope_by_hand() -> None:
    # Always yes: of every category all yeses found, half of what was said wrong.
    result = BENCHMARKS["pope"].summarise(scored(BENCHMARKS["pope"], ["Yes"] * 6))
    assert result["f1"] == pytest.approx(200 / 3)
    assert (result["accuracy"], result["recall"], result["yes ratio"]) == (50.0, 100.0, 100.0)
    # The mean of three F1 is not the F1 of all rows: here 1, 0 and 2/3 against 2*3/6 and so on.
    mixed = BENCHMARKS["pope"].summarise(scored(BENCHMARKS["pope"], ["Yes", "No", "No", "Yes", "Yes", "Yes"]))
    assert mixed["f1"] == pytest.approx(100 * (1 + 0 + 2 / 3) / 3)
    assert mixed["f1 pooled"] == pytest.approx(100 * 4 / 7)


def test_mme_by_hand() -> None:
    benchmark = BENCHMARKS["mme"]
    result = benchmark.summarise(scored(benchmark, ["Yes", "No", "Yes", "Yes", "No", "No"]))
    assert result["existence"] == 200.0
    assert result["ocr"] == 50.0
    assert (result["perception"], result["cognition"], result["hallucination"]) == (250.0, 50.0, 200.0)
    rows = scored(benchmark, ["Yes"] * 6)
    # Cut by a limit: the half of a pair says nothing.
    assert benchmark.summarise(rows[:3])["perception"] == 50.0
    with pytest.raises(DataError, match="3 questions have the id existence/0"):
        benchmark.summarise([*rows, replace(rows[0], id="more")])


def test_mmbench_by_hand() -> None:
    benchmark = BENCHMARKS["mmbench"]
    # The rotation of the first question is answered by the letter of its base row.
    result = benchmark.summarise(scored(benchmark, ["A", "A", "A"]))
    assert result["circular by rule"] == 50.0
    assert result["without rotations"] == 100.0
    assert "circular" not in result


def test_hr_bench_counts_rotations_singly() -> None:
    benchmark = BENCHMARKS["hr_bench_4k"]
    result = benchmark.summarise(scored(benchmark, ["A", "A", "A", "B"]))
    assert (result["all"], result["single"], result["cross"]) == (75.0, 50.0, 100.0)


def test_realworld_by_hand() -> None:
    benchmark = BENCHMARKS["mme_realworld"]
    result = benchmark.summarise(scored(benchmark, ["A", "A", "E"]))
    assert result["accuracy"] == result["mean of sub-tasks"] == pytest.approx(200 / 3)
    assert (result["Perception"], result["Reasoning"], result["Remote Sensing"]) == (50.0, 100.0, 0.0)


def test_realworld_in_chinese() -> None:
    benchmark = BENCHMARKS["mme_realworld_cn"]
    question = questions_of(benchmark)[0][0]
    assert question.prompt.startswith("招牌是什么颜色？ 选项如下所示:\n（A）红色\n")
    # A letter, a sentence with one, and the text of an option behind wide brackets.
    assert [row.score for row in scored(benchmark, ["A", "最佳答案为：B", "图片中没有。"])] == [1.0, 1.0, 1.0]


def test_video_mme_by_hand() -> None:
    benchmark = BENCHMARKS["video_mme"]
    questions, folder = questions_of(benchmark)
    clips = [open_visual(question.images[0], folder) for question in questions]
    assert [len(clip.frames) for clip in clips if isinstance(clip, Clip)] == [8, 8, 8]
    result = benchmark.summarise(scored(benchmark, ["B", "(A) It grows.", "the answer is B"]))
    assert result == {
        "accuracy": pytest.approx(200 / 3), "short": 50.0, "long": 100.0, "Knowledge": 50.0,
        "Artistic Performance": 100.0, "sub-category Astronomy": pytest.approx(200 / 3),
        "task Counting Problem": pytest.approx(200 / 3),
    }  # fmt: skip
    with pytest.raises(MediaError, match=r"videos/made_up_0\.mp4: there is no such video"):
        open_visual(questions[0].images[0])


def test_contamination_is_flagged() -> None:
    assert BENCHMARKS["mathvision_test"].note.startswith("CONTAMINATED")
    assert "CONTAMINATED" not in BENCHMARKS["mathvision"].note


def test_no_official_name_without_a_judge() -> None:
    judged = [benchmark for benchmark in BENCHMARKS.values() if benchmark.judged]
    assert {b.name for b in judged} == {
        "mmbench", "mmbench_cn", "mathvista", "mathverse", "mm_vet", "llava_bench", "mmhal", "hallusion_bench",
        "charxiv_reasoning", "charxiv_descriptive",
    }  # fmt: skip
    for benchmark in judged:
        assert benchmark.judged is not None
        questions, _ = questions_of(benchmark)
        rows = scored(benchmark, [right_answer(question.target) for question in questions])
        assert benchmark.judged.main not in benchmark.summarise(rows)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("vqav2", {"question_id": 262148000, "answer": "dark red"}),
        ("vizwiz", {"image": "VizWiz_val_00000000.jpg", "answer": "dark red"}),
        ("textvqa", {"question_id": 34602, "answer": "dark red"}),
        ("docvqa", {"questionId": 49153, "answer": "The dark red"}),
    ],
)
def test_submissions(name: str, entry: dict[str, object], tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.submission is not None
    questions, _ = questions_of(benchmark)
    rows = [{"id": questions[0].id, "prediction": "The dark red", "target": questions[0].target}]
    path = write_submission(benchmark.submission, rows, tmp_path, questions if benchmark.submission.every else ())
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert entries[0] == entry
    if benchmark.submission.every:
        assert [e["answer"] for e in entries[1:]] == ["", ""]
        assert len(entries) == len(questions)


def test_mmbench_submission_is_a_sheet(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["mmbench"]
    assert benchmark.submission is not None
    questions, _ = questions_of(benchmark)
    rows = [{"id": q.id, "prediction": "B\x01", "target": q.target} for q in questions]
    sheet = openpyxl.load_workbook(write_submission(benchmark.submission, rows, tmp_path)).active
    table = list(sheet.values)
    assert table[0] == ("index", "question", "A", "B", "C", "D", "prediction")
    assert table[3] == (252, "What colour is the square? (2)", "red", "blue", None, None, "B")


def test_hidden_answers_have_no_score() -> None:
    for name in ("vqav2", "vizwiz", "textvqa", "docvqa", "infovqa"):
        assert BENCHMARKS[name].score("red", {"answers": []}) is None
    assert BENCHMARKS["mmbench"].score("A", {"answer": None, "options": {"A": "x"}}) is None


def test_tasks_by_name() -> None:
    assert [task.name for task in find_tasks("pope, docvqa:test,docvqa")] == ["pope", "docvqa-test", "docvqa"]
    with pytest.raises(ConfigError, match=r"'zebra' is not a benchmark; valid names: .*pope"):
        find_tasks("zebra")
    with pytest.raises(ConfigError, match="'popes' is not a benchmark; did you mean 'pope'"):
        find_tasks("popes")
    with pytest.raises(ConfigError, match="pope:test occurs twice"):
        find_tasks("pope,pope:test")
    with pytest.raises(ConfigError, match="--tasks is empty"):
        find_tasks(" , ")


def test_the_documented_table_is_the_registry_s() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    found = re.search(r"^\| task \|.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert found, "docs/evaluation.md has no table of tasks"
    assert found[0] == task_table(), "paste the output of `slime eval tasks` into docs/evaluation.md"
