"""Grading by a language model, against a server of the OpenAI kind on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slime_vlm.cli import app
from slime_vlm.errors import ConfigError
from slime_vlm.evaluation.benchmarks import BENCHMARKS, Task
from slime_vlm.evaluation.judge import MOST_BYTES, Judge
from slime_vlm.evaluation.scoring import TaskResult, score_task
from slime_vlm.inference.batching import BatchAnswerer
from tests.evaluation.make_fixtures import FIXTURES
from tests.evaluation.test_benchmarks import questions_of
from tests.tiny_reader import save_tiny_reader


class Grader(HTTPServer):
    """Replies with its text; the first `failures` times with an error."""

    reply = "0.5"
    # Replies to give first, one each.
    first: tuple[str, ...] = ()
    failures = 0
    code = 503
    missing_bytes = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Grader

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **body})
        self.server.keys.append(self.headers.get("Authorization"))
        failed = len(self.server.asked) <= self.server.failures
        number = len(self.server.asked) - 1
        reply = self.server.first[number] if number < len(self.server.first) else self.server.reply
        content = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        self.send_response(self.server.code if failed else 200)
        self.send_header("Content-Length", str(len(content) + self.server.missing_bytes))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def grader() -> Iterator[Grader]:
    server = Grader()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def rows_of(name: str, *predictions: str) -> list[dict[str, Any]]:
    questions, _ = questions_of(BENCHMARKS[name])
    return [
        {"task": name, "split": BENCHMARKS[name].source.split, "place": index, "id": q.id, "prediction": text}
        | {"target": q.target}
        for index, (q, text) in enumerate(zip(questions, predictions, strict=True))
    ]


def graded(name: str, grader: Grader, *predictions: str, **options: Any) -> TaskResult:
    benchmark = BENCHMARKS[name]
    judge = Judge(grader.url, "grader-1", key="secret", pause=0.0)
    return score_task(Task(benchmark, benchmark.source.split), rows_of(name, *predictions), judge, **options)


def test_mm_vet(grader: Grader, tmp_path: Path) -> None:
    result = graded("mm_vet", grader, "-1", "navy", "2", folder=tmp_path)
    assert result.main == "score"
    assert result.score == 50.0
    assert result.metrics["exactly math, ocr"] == 50.0
    assert result.judge == {"model": "grader-1", "prompt": "slime-vlm"}
    assert grader.asked[0]["path"] == "/v1/chat/completions"
    assert grader.asked[0]["model"] == "grader-1"
    assert "-1 <AND> -5" in grader.asked[0]["messages"][0]["content"]
    assert set(grader.keys) == {"Bearer secret"}
    # Replies are kept, so that nothing is asked twice; the key is not.
    assert graded("mm_vet", grader, "-1", "navy", "2", folder=tmp_path).score == 50.0
    assert len(grader.asked) == 3
    graded("mm_vet", grader, "-1", "navy", "another", folder=tmp_path)
    assert len(grader.asked) == 4
    assert "secret" not in (tmp_path / "judgements.jsonl").read_text()


def test_a_reply_of_megabytes(grader: Grader) -> None:
    grader.reply = "0" * MOST_BYTES
    with pytest.raises(ConfigError, match="the reply has more than 1,000,000 bytes"):
        Judge(grader.url, "grader-1", pause=0.0).ask("Grade this.")


def test_llava_bench_is_relative_to_the_reference(grader: Grader) -> None:
    grader.reply = "8 6\nThe second is shorter."
    assert graded("llava_bench", grader, "a", "b", "c").score == pytest.approx(75.0)
    grader.reply = "I cannot tell"
    result = graded("llava_bench", grader, "a", "b", "c")
    assert (result.score, result.metrics["unreadable grades"]) == (0.0, 100.0)


def test_mmhal(grader: Grader) -> None:
    grader.reply = "Some invention.\nRating: 2"
    result = graded("mmhal", grader, "a", "b", "c")
    assert result.score == pytest.approx(2.0)
    assert result.full_marks == 6.0
    assert result.metrics["hallucination rate"] == 100.0
    # The same one twice is one, two are none.
    grader.reply = "Rating: 2, for it invents.\nRating: 2"
    assert graded("mmhal", grader, "a", "b", "c").score == pytest.approx(2.0)
    grader.reply = "Rating: 2 or Rating: 5"
    assert graded("mmhal", grader, "a", "b", "c").metrics["unreadable grades"] == 100.0


def test_a_judge_is_asked_only_what_rules_leave_open(grader: Grader) -> None:
    grader.reply = "B"
    # The rotation of the first question, whose right letter is B; A and A are read by rule.
    result = graded("mmbench", grader, "A", "the one after it", "A")
    assert result.main == "circular"
    assert result.score == 100.0
    assert len(grader.asked) == 1
    # Z is a reading: none of the options.
    grader.reply = "Z"
    assert graded("mmbench", grader, "A", "the one after it", "A").metrics["unreadable grades"] == 0.0
    grader.asked.clear()
    grader.reply = "2.5"
    assert graded("mathvista", grader, "red", "1", "two and a half").score == 100.0
    assert len(grader.asked) == 1
    grader.reply = "1"
    result = graded("mathverse", grader, "three", "three", "three")
    assert result.metrics["accuracy"] == 100.0


def test_an_unreadable_reply_is_asked_for_again(grader: Grader, tmp_path: Path) -> None:
    grader.first = ("3/10", "7 out of 10")
    grader.reply = "Score for question 1: 0.3"
    result = graded("mm_vet", grader, "-1", "navy", "2", folder=tmp_path)
    assert (result.score, result.metrics["unreadable grades"]) == (pytest.approx(30.0), 0.0)
    assert [one["temperature"] for one in grader.asked] == [0.0, 0.5, 1.0, 0.0, 0.0]
    # Every try is kept.
    assert graded("mm_vet", grader, "-1", "navy", "2", folder=tmp_path).score == pytest.approx(30.0)
    assert len(grader.asked) == 5


@pytest.mark.parametrize(
    ("task", "reply"),
    [
        ("mm_vet", "3/10"),
        ("mm_vet", "7 out of 10"),
        ("mm_vet", "7"),
        ("mathverse", "Both"),
        ("mathverse", "10"),
        ("mathverse", "1 or 0"),
        ("mmbench", "Both"),
        ("mmbench", "A or B"),
        ("mathvista", " "),
        ("llava_bench", "7 out of 10"),
        ("mmhal", "Rating: 3/10"),
    ],
)
def test_no_reply_is_misread(task: str, reply: str, grader: Grader) -> None:
    grader.reply = reply
    result = graded(task, grader, "i do not know", "who knows", "it is not shown")
    assert (result.score, result.metrics["unreadable grades"]) == (0.0, 100.0)
    assert len(grader.asked) == 9


@pytest.mark.parametrize(
    ("task", "reply", "score"),
    [
        ("mm_vet", "**1**", 100.0),
        ("mathverse", "Judgement: 1", 100.0),
        ("mathverse", "**0**", 0.0),
        ("mmhal", "**Rating:** 4", 4.0),
        ("llava_bench", "**8** 6\nExplained.", 75.0),
    ],
)
def test_emphasis_and_labels_do_not_matter(task: str, reply: str, score: float, grader: Grader) -> None:
    grader.reply = reply
    result = graded(task, grader, "i do not know", "who knows", "it is not shown")
    assert (result.score, result.metrics["unreadable grades"]) == (pytest.approx(score), 0.0)


def test_own_prompts(grader: Grader, tmp_path: Path) -> None:
    (tmp_path / "mm_vet.txt").write_text("Grade {prediction} against {answer}.")
    result = graded("mm_vet", grader, "x", "y", "z", templates=tmp_path)
    assert result.judge == {"model": "grader-1", "prompt": "mm_vet.txt"}
    assert grader.asked[0]["messages"][0]["content"] == "Grade x against -1 <AND> -5."
    (tmp_path / "mm_vet.txt").write_text("Grade {predicted}.")
    with pytest.raises(ConfigError, match=r"\{predicted\} is not a known field, expected answer, prediction, question"):
        graded("mm_vet", grader, "x", "y", "z", templates=tmp_path)


def test_failures(grader: Grader) -> None:
    grader.failures = 2
    assert Judge(grader.url, "g", pause=0.0).ask("?") == "0.5"
    assert len(grader.asked) == 3
    grader.failures, grader.code = 100, 401
    with pytest.raises(ConfigError, match="401"):
        Judge(grader.url, "g", pause=0.0).ask("?")
    # Asking again would not help.
    assert len(grader.asked) == 4
    # A reply that breaks off is asked for again.
    grader.failures, grader.missing_bytes = 0, 5
    with pytest.raises(ConfigError, match=r"5 more expected.*; check --judge-url"):
        Judge(grader.url, "g", pause=0.0).ask("?")
    assert len(grader.asked) == 8
    with pytest.raises(ConfigError, match="expected an address"):
        Judge("host/v1", "g")
    with pytest.raises(ConfigError, match="--judge-model"):
        Judge("http://host/v1", "")


def test_graded_results_stay_when_other_tasks_join(
    grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BatchAnswerer.answer
    monkeypatch.setattr(BatchAnswerer, "answer", lambda self, p, i, max_new_tokens, **gen: real(self, p, i, 4, **gen))
    model, out = save_tiny_reader(tmp_path / "model"), tmp_path / "out"

    def run(*arguments: str) -> str:
        command = ["eval", "run", "--model", str(model), "--device", "cpu", "--data", str(FIXTURES), "--out", str(out)]
        result = CliRunner().invoke(app, [*command, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run("--tasks", "mm_vet", "--limit", "2", "--judge-url", grader.url, "--judge-model", "g")
    assert len(grader.asked) == 2
    shown = run("--tasks", "scienceqa", "--limit", "1")
    # Neither asked nor graded again, and in the table of the folder.
    assert len(grader.asked) == 2
    assert "| MM-Vet | test | score | 50.00 | 2 |" in shown
    results = json.loads((out / "results.json").read_text())
    assert list(results["tasks"]) == ["mm_vet", "scienceqa"]
    assert results["tasks"]["mm_vet"]["judge"] == {"model": "g", "prompt": "slime-vlm"}
    assert "Graded by g" in (out / "results.md").read_text()
    # Grades of other predictions are none of these: by rule MM-Vet has no number.
    first, *_ = (out / "mm_vet" / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "mm_vet" / "predictions.jsonl").write_text(first)
    assert "| MM-Vet | test | needs a judge (--judge-url) | – | 1 |" in run("--tasks", "scienceqa", "--limit", "1")
    # Scored again into the folder, results still say what they are of.
    scored = CliRunner().invoke(app, ["eval", "score", str(out), "--out", str(out)])
    assert scored.exit_code == 0, scored.output
    expected = f"Model {model}. Not all questions: the first 2 of MM-Vet, the first 1 of ScienceQA-IMG."
    assert expected in (out / "results.md").read_text()


def test_score_command(grader: Grader, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "mm_vet"
    folder.mkdir(parents=True)
    rows = rows_of("mm_vet", "-1 and -5", "navy", "3")
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = CliRunner().invoke(app, ["eval", "score", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert alone.exit_code == 0, alone.output
    assert "| MM-Vet | test | needs a judge (--judge-url) | – | 3 |" in alone.output
    assert "key phrases found (no judge): 66.67" in alone.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]["mm_vet"]["score"] is None
    arguments = ["eval", "score", str(folder / "predictions.jsonl"), "--judge-url", grader.url, "--judge-model", "g"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| MM-Vet | test | score | 50.00 | 3 |" in result.output
    assert "Graded by g, prompt of slime-vlm." in result.output
