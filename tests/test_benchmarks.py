"""The benchmarks run from end to end, with tiny parts."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from slime_vlm.evaluation.ablation.samples import record_samples
from tests.training.forking import ROOT, forking

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a benchmark as a program, in this process, which has imported torch and transformers."""

    def program(name: str, *arguments: str | Path) -> str:
        # Its processes are forked from that of the tests.
        forking()
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        # What Python does for a program.
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.syspath_prepend(str((BENCHMARKS / name).parent))
        monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}")
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        return capfd.readouterr().out

    return program


def test_decode(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "steps.json"
    run("decode.py", "--small", "--rows", "2", "--tokens", "20", "--steps", "2", "--out", out)
    (row,) = json.loads(out.read_text())
    assert set(row) == {"rows", "tokens", "transformers", "in place"}
    assert row["transformers"]["megabytes"] > 0


def test_answering_on_a_gpu(run: Callable[..., str], tmp_path: Path) -> None:
    """On a CPU, where its ceilings and its ratios mean nothing."""
    out = tmp_path / "answering.json"
    few = ("--tiles", "2", "--batches", "1", "2", "--budget", "40", "--new-tokens", "2")
    printed = run("gpu/answering.py", "--small", "--device", "cpu", *few, "--out", out)
    assert printed.count("| ours of LLaVA-NeXT |") == 2
    found = json.loads(out.read_text())
    assert found["2 tiles, 2 rows, ours"]["tokens"] < found["2 tiles, 2 rows, LLaVA-NeXT"]["tokens"]
    assert all(value > 0 for value in found["2 tiles, 1 rows, ours"].values())


def test_training_on_a_gpu(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    run("gpu/training.py", "--small", "--device", "cpu", "--batches", "1", "--repeats", "1", "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["rows"] == 8
    # Text tokens, and the global and the kept local ones of six images.
    assert 1_000 < row["tokens"] < 3_000
    assert 0 < row["of ceiling"] < 1


@pytest.mark.parametrize("name", ["answering", "training"])
def test_without_a_gpu_one_line_says_so(
    run: Callable[..., str], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run(f"gpu/{name}.py")
    assert "no CUDA device was found" in capfd.readouterr().err


def test_run_all(run: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder" / "all.json"
    with pytest.raises(SystemExit) as ended:
        run("run_all.py", "--quick", "--only", "decode.py", "--out", out)
    assert not ended.value.code
    assert "| decode.py | a step of 1 rows behind 200 tokens: " in capfd.readouterr().out
    assert len(json.loads(out.read_text())["decode.py"]) == 3


def test_run_all_ends_in_time(run: Callable[..., str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("run_all.py", "--quick", "--only", "decode.py", "huge_image.py", "--minutes", "0.01")
    assert ended.value.code == 1
    printed = capfd.readouterr().out
    assert "| decode.py | stopped: the time is over | " in printed
    assert "| huge_image.py | left out: the time is over | 0.0 |" in printed


def test_the_usual_benchmarks_take_less_than_20_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from run_all import BENCHMARKS as ALL
    from run_all import MINUTES

    assert MINUTES <= 20
    assert sum(benchmark.seconds for benchmark in ALL) < 0.9 * 60 * MINUTES


def test_compare_this_tree_with_itself(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (300, 200), "white").save(tmp_path / "page.png")
    monkeypatch.chdir(tmp_path)
    printed = run("compare.py", ".", ".", "--rounds", "1", "--image", "page.png")
    assert "| working tree | working tree | new / old |" in printed
    assert "answers: the same" in printed


@pytest.mark.parametrize(
    ("commits", "message"),
    [
        (["nowhere", "."], "nowhere: no commit"),
        (["."], "got 1 commit"),
        ([".", ".", "--image", "nowhere.png"], "the process of working tree ended"),
    ],
)
def test_what_cannot_be_compared(
    run: Callable[..., str], capfd: pytest.CaptureFixture[str], commits: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("compare.py", *commits)
    assert ended.value.code
    assert message in f"{ended.value.code}{capfd.readouterr().err}"


def test_huge_image(run: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, figure = tmp_path / "rows.json", tmp_path / "plot.png"
    options = ["--encoder", "tiny", "--max-tiles", "12", "--budget", "50", "--out", out, "--plot", figure]
    printed = run("huge_image.py", "--megapixels", "0.2", "0.9", *options)
    few, many = json.loads(out.read_text())
    assert few["tiles"] < many["tiles"] <= 12
    assert few["kept"] == many["kept"] == 50
    assert few["read"] == many["read"] == 576 + 1 + 50
    assert set(few["seconds"]) == {"open", "preprocess", "encode", "select", "prefill", "decode"}
    # Two lines of headings, a row for each, a blank line, and what grew.
    assert printed.count("\n") == 6
    assert printed.endswith(" times the prefill\n")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_huge_image_of_tiles(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    run(
        "huge_image.py",
        "--megapixels",
        "0.3",
        "--format",
        "tiff",
        "--encoder",
        "tiny",
        "--max-tiles",
        "5",
        "--out",
        out,
    )
    (row,) = json.loads(out.read_text())
    # Small ones are decoded whole.
    assert row["decoded"] == pytest.approx(1.2, rel=0.01)


def test_encode(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "encode.json"
    options = ["--small", "--repeats", "1", "--tiles", "2", "--questions", "2", "--new-tokens", "3"]
    options += ["--question-tiles", "2"]
    printed = run("encode.py", *options, "--out", out)
    results = json.loads(out.read_text())
    for name in ("ours", "ours, fast", "published", "LLaVA-NeXT"):
        assert f"| 2 | {name} |" in printed
        assert results[f"2 tiles, {name}"]["encode"] > 0
        assert results[f"2 tiles, {name}"]["decode"] > 0
        assert results[f"2 tiles, {name}"]["peak"] > 100
        one, two = (results[f"{number} questions, {name}"] for number in (1, 2))
        assert two["decode"] > one["decode"] > 0
        # The image is encoded once by us, and once a question by the others.
        assert (two["encode"] == one["encode"]) == name.startswith("ours")
    assert 0 < results["preprocessing"]["share of values that differ with torch"] < 0.05


def test_first_token(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "first_token.json"
    printed = run("first_token.py", "--small", "--repeats", "1", "--tiles", "2", "--layers", "1", "--out", out)
    assert "1 layers are measured, 3 are computed" in printed
    results = json.loads(out.read_text())
    ours, theirs = (results[f"2 tiles, {name}"] for name in ("ours", "LLaVA-NeXT"))
    for row in (ours, theirs):
        steps = sum(row[step] for step in ("preprocess", "encode", "select", "prefill"))
        assert row["measured"] == pytest.approx(steps)
        assert row["computed"] == pytest.approx(row["measured"] + 3 * row["layer"])
        assert 0 < row["layer"] < row["prefill"]
        assert row["least"] < row["computed"]
        assert row["cpu"] > 0
        assert row["global"] == 16
    # A map of 4 x 8 features with one token more at the end of every row, and the separator.
    assert theirs["local"] == 4 * 9
    assert ours["local"] <= 2 * 4
    assert ours["text"] == theirs["text"] + 1


def test_a_budget_of_the_first_token(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "first_token.json"
    run("first_token.py", "--small", "--repeats", "1", "--tiles", "4", "--budget", "3", "--out", out)
    assert json.loads(out.read_text())["4 tiles, ours"]["local"] == 3


def test_more_layers_than_there_are(run: Callable[..., str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("first_token.py", "--language", "0.3b", "--layers", "17")
    assert ended.value.code == 2
    assert "--layers 17: the language model has 1 to 16" in capfd.readouterr().err


def test_start(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "start.json"
    run("start.py", "--rounds", "1", "--out", out)
    found = json.loads(out.read_text())
    assert all(used > 0 for _wall, used in found.values())
    whole, without = found["slime ask, whole"], found["slime ask, without the answer"]
    assert without[0] < whole[0]


def test_together(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "together.json"
    run("together.py", "--questions", "2", "--rounds", "1", "--new-tokens", "2", "--out", out)
    found = json.loads(out.read_text())
    assert list(found) == ["as it comes", "budget"]
    assert all(one["same answers"] == 1 and one["together"] > 0 for one in found.values())


def test_plot_of_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from growth_plot import plot

    target = tmp_path / "growth.png"
    step = {"seconds": 0.1, "megabytes": 2}
    rows = [{"rows": rows, "tokens": 20, "in place": step, "transformers": step} for rows in (1, 2)]
    plot({"decode.py": rows, "encode.py": None}, target)
    assert target.read_bytes().startswith(b"\x89PNG")
    names = r"none of decode\.py, encode\.py, first_token\.py, huge_image\.py was measured"
    with pytest.raises(SystemExit, match=names):
        plot({"serve.py": []}, target)


def test_train_step(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "train_step.json"
    printed = run("train_step.py", "--size", "tiny", "--threads", "1", "--bf16", "--out", out)
    rows = json.loads(out.read_text())
    assert [row["way"] for row in rows] == ["packed, bf16", "packed", "padded", "published"]
    assert rows[0]["losses"] == pytest.approx(rows[1]["losses"], rel=1e-2)
    for row in rows[1:]:
        assert f"| {row['way']} |" in printed
        assert row["losses"] == pytest.approx(rows[1]["losses"], rel=1e-5)
        assert row["losses"][1] < row["losses"][0]
        assert row["seconds"] > 0
        assert row["peak"] > 100


def test_real_scans(run: Callable[..., str], tmp_path: Path) -> None:
    # Scans that are there are not fetched.
    for name in ("linn.png", "typewriter.png"):
        Image.new("RGB", (40, 50)).save(tmp_path / name)
    assert "2 scans, 16 questions" in run("real_scans.py", "--out", tmp_path)
    images = record_samples(tmp_path / "records.jsonl")
    assert [len(image.questions) for image in images] == [11, 5]


def test_queries(run: Callable[..., str], tmp_path: Path) -> None:
    # One step.
    options = ["--scale", "0.001", "--pages", "1", "--seeds", "1", "--queries", "16", "--cost-pages", "1"]
    printed = run("queries.py", *options, "--out", tmp_path / "runs", "--plot", tmp_path / "plot.png")
    (row,) = [line for line in printed.splitlines() if line.startswith("| 16 |")]
    # A page of two or three tiles.
    assert 2 * 16 <= int(row.split("|")[-5]) <= 3 * 16
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_process_does_not_inherit_its_parents_memory() -> None:
    large = bytearray(600_000_000)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from machine import peak_memory; print(peak_memory())"
    command = [sys.executable, "-c", code, str(BENCHMARKS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout) < len(large) / 1e6 / 2


def test_alternating(run: Callable[..., str], tmp_path: Path) -> None:
    # One step a stage.
    options = ["--scale", "0.001", "--pages", "1", "--seeds", "1"]
    printed = run("alternating.py", *options, "--out", tmp_path / "runs", "--plot", tmp_path / "plot.png")
    for arm in ("alternating", "joint"):
        assert f"| {arm} | 1 |" in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_serve(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    run("serve.py", "--clients", "2", "--requests", "2", "--loop", "1", "--out", out)
    rows = json.loads(out.read_text())
    assert [(row["images"], row["engine"], row["clients"]) for row in rows] == [
        ("one", "loop", 1),
        ("one", "loop that keeps the image", 1),
        ("different", "loop", 1),
        ("one", "slime serve", 2),
        ("different", "slime serve", 2),
    ]
    assert all(row["requests/s"] > 0 and row["cpu seconds a request"] > 0 for row in rows)
