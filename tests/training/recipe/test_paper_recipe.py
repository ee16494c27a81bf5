"""The paper's recipe from end to end: a tiny random model, four stages, files in the forms of the published data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.weight_names import native_names
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.recipe import load_recipe
from slime_vlm.training.run import train
from slime_vlm.training.stages import apply_stage
from tests.data.writing import make_image, turns, write_lines
from tests.training.mini import losses, write_parts

ROOT = Path(__file__).parents[3]
RECIPE = RECIPES / "slime-vicuna-7b.yaml"

# Stage of the recipe -> stage of the published scripts, whose flags were recorded.
PUBLISHED = {
    "1a": "stage1a_global_projector",
    "1b": "stage1b_global_attention",
    "2": "stage2_local",
    "3": "stage3_full",
}
GATE = "model.global_adapter.gate_weight"


def _json(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def _images(root: Path, records: list[dict[str, Any]]) -> None:
    for number, record in enumerate(records):
        if "image" in record:
            path = root / record["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_image("blue", 40 + 12 * number, 60))


def write_captions(folder: Path) -> Path:
    """blip_laion_cc_sbu_558k.json: an instruction with the placeholder before or after it, and a caption."""
    records = [
        {
            "id": f"00453904{i}",
            "image": f"00{453 + i}/00453904{i}.jpg",
            "conversations": turns(instruction, f"a drawing number {i}"),
        }
        for i, instruction in enumerate(["<image>\nDescribe it briefly.", "What is in the photo?\n<image>"])
    ]
    _images(folder / "images", records)
    return _json(folder / "blip_laion_cc_sbu_558k.json", records)


def write_mix(folder: Path) -> Path:
    """The mix of 665k: images in folders of their sources, several turns, text alone, ids of both types."""
    short = "\nAnswer the question using a single word or phrase."
    records: list[dict[str, Any]] = [
        {
            "id": "000000033471",
            "image": "coco/train2017/000000033471.jpg",
            "conversations": turns("<image>\nWhich colour?", "Blue.", "And how large?", "Small."),
        },
        {"id": 2354786, "image": "gqa/images/2354786.jpg", "conversations": turns("<image>\nIs it red?" + short, "No")},
        {
            "id": "0195153448",
            "image": "ocr_vqa/images/0195153448.jpg",
            "conversations": turns("Who wrote it?\n<image>" + short, "Nobody"),
        },
        {"id": "wgByO4Y_0", "model": "", "conversations": turns("Two and two?", "Four.", "Sure?", "Yes.")},
    ]
    _images(folder / "images", records)
    return _json(folder / "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json", records)


def write_smr(folder: Path) -> Path:
    """SMR: a short answer, a chain of reasoning."""
    records: list[dict[str, Any]] = [
        {
            "id": "dvqa-0",
            "image": "DVQA/images/bar_train_00000000.png",
            "conversations": turns("<image>\nHow many bars?", "four"),
        },
        {
            "id": "geometry3k-12",
            "image": "Geometry3K/12/img_diagram.png",
            "conversations": turns("<image>\nFind x.\nA. 1\nB. 2", "Both sides are equal.\nSo the answer is B."),
        },
    ]
    _images(folder / "smr", records)
    return write_lines(folder / "smr.jsonl", records)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Folder of the run, and the overrides that made it small."""
    folder = tmp_path_factory.mktemp("paper")
    vision, llm = write_parts(folder / "parts")
    data = folder / "data"
    captions, mix, smr = write_captions(data), write_mix(data), write_smr(data)
    tiny = {
        "vision_config": json.loads((vision / "config.json").read_text()),
        "text_config": json.loads((llm / "config.json").read_text()),
        "num_local_queries": 1,
        "query_attention_head_dim": 8,
    }
    sources = [{"path": str(mix), "images": str(data / "images")}, {"path": str(smr), "images": str(data / "smr")}]
    values: dict[str, Any] = {
        "model.vision": str(vision),
        "model.llm": str(llm),
        **{f"model.config.{key}": value for key, value in tiny.items()},
        "stages.3.data.mixture": sources,
        "stages.3.data.workers": 0,
    }
    for stage in ("1a", "1b", "2"):
        values |= {f"stages.{stage}.data.{key}": value for key, value in (("records", str(captions)), ("workers", 0))}
        values[f"stages.{stage}.data.images"] = str(data / "images")
    for stage, batch in (("1a", 2), ("1b", 2), ("2", 2), ("3", 6)):
        small = {"steps": 3, "batch_size": batch, "micro_batch_size": batch // 2, "learning_rate": 1e-2}
        values |= {f"stages.{stage}.{key}": value for key, value in small.items()}
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in values.items()]
    out = folder / "run"
    train(RECIPE, out, overrides=overrides)
    return out, overrides


def test_all_four_stages_ran(run: tuple[Path, list[str]]) -> None:
    out, _ = run
    for stage in PUBLISHED:
        assert sorted(losses(out / stage)) == [1, 2, 3]
        assert not (out / stage / "bad_records_0.jsonl").exists()
    model, _ = load(out / "3" / "model", device="cpu")
    config = model.config
    assert (config.views, config.gate, config.selector_top_p) == ("both", "mixture", 0.95)


def test_what_trains_is_what_the_published_scripts_train(run: tuple[Path, list[str]]) -> None:
    out, overrides = run
    recipe = load_recipe(RECIPE, dict(item.split("=", 1) for item in overrides))
    recorded = json.loads((ROOT / "tests" / "parity" / "data" / "training" / "trainable_as_flagged.json").read_text())
    assert recorded
    before: dict[str, Any] = {}
    for stage in recipe.stages:
        model, _ = load(out / stage.name / "model", device="cpu")
        opened = set(apply_stage(model, stage))
        for stages in recorded.values():
            published = {ours for name in stages[PUBLISHED[stage.name]]["requires_grad"] for ours in native_names(name)}
            # Position tables are buffers here.
            assert {name for name in published if not name.endswith("position_table")} == opened
        after = load_file(out / stage.name / "model" / "model.safetensors")
        changed = {name for name, value in after.items() if before and not before[name].equal(value)}
        # A gate that stands on one adapter gets no gradient.
        idle = {GATE} if stage.name in ("1a", "1b") else set()
        assert changed <= opened - idle
        if before:
            assert {name.split(".")[1] for name in changed} == {name.split(".")[1] for name in opened - idle}
        before = after
