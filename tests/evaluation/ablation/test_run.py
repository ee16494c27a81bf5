"""The ablation from end to end: the shipped model on rendered pages, a tiny one on records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from slime_vlm.cli import app
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.evaluation.ablation.running import NO_QUERIES, AblationOptions, run_ablation
from slime_vlm.evaluation.ablation.samples import record_samples
from slime_vlm.evaluation.ablation.settings import find_settings
from slime_vlm.pages import PageSettings, make_page, render
from slime_vlm.pages.scaling import scale_page
from tests.tiny_reader import save_tiny_reader

PLOTS = ("accuracy_against_tokens.png", "seconds_against_tokens.png", "accuracy_against_side.png")
QUIET = Console(quiet=True)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def without_costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("seconds", "megabytes")} for row in rows]


def write_records(folder: Path, count: int = 2) -> Path:
    """Images with two questions each, one about what is absent."""
    records = []
    for seed in range(count):
        page = make_page(seed, PageSettings(tiles=(2, 2), page_scale=(0.8, 1.3), kinds={"form": 1.0}))
        Image.fromarray(render(page)).save(folder / f"{seed}.png")
        turns = [
            {"from": "human", "value": "<image>\nWhat is the total?"},
            {"from": "gpt", "value": "12.50"},
            {"from": "human", "value": "Where is the whale?"},
            {"from": "gpt", "value": "not on this page"},
        ]
        records.append({"id": f"scan-{seed}", "image": f"{seed}.png", "kind": "scan", "conversations": turns})
    path = folder / "scans.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_nano_on_a_page(tmp_path: Path) -> None:
    settings = (
        "all,best 64,best 16,views,gate,prompt as many,random as many,resized to 336,resized to 672,rendered at 336"
    )
    arguments = ["eval", "ablation", "--limit", "1", "--seeds", "1", "--tiles", "2", "--settings", settings]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_setting.setdefault(row["setting"], []).append(row)
    assert list(by_setting) == [setting.name for setting in find_settings(settings)]
    assert len({len(found) for found in by_setting.values()}) == 1
    assert [row["place"] for row in rows] == sorted(row["place"] for row in rows)
    kept = {name: [row["tokens"]["kept"] for row in found] for name, found in by_setting.items()}
    assert kept["prompt as many"] == kept["random as many"] == kept["slime"]
    assert set(kept["best 64"]) == {64}
    assert set(kept["all"]) == {128}
    assert set(kept["global only"]) == {0}
    assert {row["tokens"]["global"] for row in by_setting["local only"]} == {0}
    assert {row["tokens"]["global"] for row in by_setting["mlp alone"]} == {256}
    assert {max(row["image_size"]) for row in by_setting["resized to 672"]} == {672}
    assert {max(row["image_size"]) for row in by_setting["rendered at 336"]} == {336}
    # nano answers small pages, and from local tokens alone.
    scores = {name: sum(row["score"] for row in found) for name, found in by_setting.items()}
    assert scores["slime"] >= len(by_setting["slime"]) / 2
    assert scores["all"] >= scores["global only"]
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert result.stdout.strip() == text.strip()
    assert "| setting | accuracy | 95% |" in text
    assert NO_QUERIES in text
    assert all((tmp_path / name).stat().st_size > 5_000 for name in PLOTS)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["origin"]["model"] == "nano"
    assert set(results["settings"]) == set(by_setting)


def test_resumed_is_as_uninterrupted(tmp_path: Path) -> None:
    model, records = save_tiny_reader(tmp_path / "model"), write_records(tmp_path)
    settings = find_settings("budget,gate,random as many,resized to 336")

    def run(out: Path) -> str:
        options = AblationOptions(str(model), out, settings, limit=None, records=records, device="cpu")
        return run_ablation(options, QUIET)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)
    lines = (whole / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * 2 * len(settings)
    # What a kill leaves: some units, the last line torn, in the part of the process.
    killed.mkdir()
    (killed / "run.json").write_bytes((whole / "run.json").read_bytes())
    (killed / "predictions.part0.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:50])
    run(killed)
    resumed = (killed / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    # Each with its seconds: what was whole has not been asked again.
    assert resumed[:8] == lines[:8]
    assert without_costs(rows_of(killed)) == without_costs(rows_of(whole))
    # Once more: all is there, and nothing changes.
    run(killed)
    assert (killed / "predictions.jsonl").read_bytes().splitlines(keepends=True) == resumed

    other = AblationOptions(str(model), killed, settings, limit=None, records=records, device="cpu", tiles=4)
    with pytest.raises(ConfigError, match="tiles was 6 and is 4"):
        run_ablation(other, QUIET)


def test_records_by_the_command(tmp_path: Path) -> None:
    model, records = save_tiny_reader(tmp_path / "model"), write_records(tmp_path)
    arguments = ["eval", "ablation", "--model", str(model), "--records", str(records), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--settings", "views,rendered", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "out")
    assert {row["group"] for row in rows} == {"scan", "absent"}
    assert {row["prompt"] for row in rows} == {"What is the total?", "Where is the whale?"}
    assert "cannot be rendered at another size" in result.stdout
    assert not any(row["setting"].startswith("rendered") for row in rows)
    # `views` brings the setting `all`, which belongs to other tables, too: they have nothing else to show.
    titles = [line.split("**")[1] for line in result.stdout.splitlines() if line.startswith("**")]
    assert titles == ["What holds here", "Views", "By kind of page"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ["0.png", "0.png"]}, "'scan-0' has 2 images, expected one"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "turns of gpt, expected human and gpt in turn"),
    ],
)
def test_records_that_cannot_be_asked(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_records(tmp_path, count=1)
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, **change}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        record_samples(path)


def test_command_names_what_it_does_not_know(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", "ablation", "--settings", "gates", "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'gate'" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_page_drawn_larger_is_the_same_page() -> None:
    page = make_page(3, PageSettings(tiles=(2, 2), page_scale=(0.8, 1.3), noise=0.0))
    longest = max(page.height, page.width)
    assert (render(scale_page(page, longest)) == render(page)).all()
    larger = scale_page(page, 2 * longest)
    assert (larger.height, larger.width) == (2 * page.height, 2 * page.width)
    assert larger.questions == page.questions
    assert (larger.runs[0].boxes == 2 * page.runs[0].boxes).all()
    assert render(larger).shape == (larger.height, larger.width, 3)
