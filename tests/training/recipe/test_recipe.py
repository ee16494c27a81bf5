from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from slime_vlm.errors import ConfigError
from slime_vlm.recipes import FOLDER as RECIPES
from slime_vlm.training.recipe import load_recipe, recipe_dict
from tests.training.mini import mini_recipe, write_recipe


def message_of(tmp_path: Path, recipe: Any, overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(write_recipe(tmp_path, recipe), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_recipe_of_the_repository_loads() -> None:
    paths = sorted(RECIPES.glob("*.yaml"))
    names = {path.stem for path in paths}
    assert {"nano", "slime-vicuna-7b", "slime-vicuna-13b", "slime-llama3-8b", "slime-vicuna-7b-lora"} <= names
    for path in paths:
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        assert all(stage.source for stage in recipe.stages), f"{path}: a stage does not say where its numbers are from"
        assert path.read_text().startswith(("# slime train", "# torchrun"))


def test_the_ablation_differs_in_what_trains_when_alone() -> None:
    alternating, joint = (load_recipe(RECIPES / "ablations" / f"{name}.yaml") for name in ("alternating", "joint"))
    (whole,) = joint.stages
    assert sum(stage.steps or 0 for stage in alternating.stages) == whole.steps
    assert alternating.stages[-1].trains == whole.trains
    for stage in alternating.stages:
        own = {"name", "trains", "config", "steps", "seed", "source", "part_learning_rates"}
        assert {k: v for k, v in asdict(stage).items() if k not in own} == {
            k: v for k, v in asdict(whole).items() if k not in own
        }


@pytest.mark.parametrize("llm", ["vicuna-7b", "vicuna-13b", "llama3-8b"])
def test_numbers_of_the_paper(llm: str) -> None:
    vicuna = llm.startswith("vicuna")
    stages = {stage.name: stage for stage in load_recipe(RECIPES / f"slime-{llm}.yaml").stages}
    assert list(stages) == ["1a", "1b", "2", "3"]
    for name in ("1a", "1b", "2"):
        assert (stages[name].learning_rate, stages[name].batch_size) == (1e-3 if vicuna else 5e-4, 256)
        assert stages[name].data.conversation == "plain"
    assert (stages["3"].learning_rate, stages["3"].batch_size) == (2e-5 if vicuna else 1e-5, 128)
    assert [stages[name].config.get("views") for name in stages] == ["global", "global", "local", "both"]
    assert [stages[name].config.get("gate") for name in stages] == ["mlp", "attention", None, "mixture"]
    assert [stages[name].config.get("selector_top_p") for name in stages] == [None, None, 1.0, 0.95]
    for stage in stages.values():
        assert (stage.schedule, stage.warmup_ratio, stage.weight_decay) == ("cosine", 0.03, 0.0)
        assert (stage.epochs, stage.max_sequence_length, stage.bf16) == (1.0, 2048, True)

    lora = load_recipe(RECIPES / f"slime-{llm}-lora.yaml").stages[-1]
    assert lora.name == "3-lora"
    assert lora.lora is not None
    assert (lora.lora.rank, lora.lora.alpha, lora.learning_rate) == (128, 256, 1e-4)
    assert set(lora.part_learning_rates.values()) == {2e-5}
    assert set(lora.part_learning_rates) == set(lora.trains) - {"language_model"}


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["stages"][0]["learning_rat"] = 1.0
    assert "unknown key 'stages.encoder.learning_rat': did you mean 'learning_rate'?" in message_of(tmp_path, recipe)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["sed"] = 3
    recipe["stages"][0]["steps"] = "many"
    recipe["stages"][1]["bf16"] = 1
    del recipe["stages"][2]["batch_size"]
    message = message_of(tmp_path, recipe)
    assert "did you mean 'seed'?" in message
    assert "'stages.encoder.steps' is 'many', expected int" in message
    assert "'stages.lm.bf16' is 1, expected bool" in message
    assert "missing key 'stages.both.batch_size'" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trains": ["projektor"]}, "did you mean 'projector'?"),
        ({"trains": "projector"}, "'stages.encoder.trains' is 'projector', expected a list"),
        ({"page_training": {"objective": "red"}}, "'red', expected answer, read or symbolic_tokens"),
        ({"schedule": "cosin"}, "'stages.encoder.schedule' is 'cosin', expected cosine, linear"),
        ({"batch_size": 0}, "'stages.encoder.batch_size' is 0, expected at least 1"),
        ({"micro_batch_size": 0}, "'stages.encoder.micro_batch_size' is 0, expected at least 1"),
        ({"steps": -1}, "'stages.encoder.steps' is -1, expected at least 1"),
        ({"epochs": 0}, "'stages.encoder.epochs' is 0.0, expected more than 0"),
        ({"learning_rate": -1}, "'stages.encoder.learning_rate' is -1.0, expected at least 0"),
        ({"learning_rate": float("nan")}, "'stages.encoder.learning_rate' is nan, expected at least 0"),
        ({"adam_beta2": 1}, "'stages.encoder.adam_beta2' is 1.0, expected 0 or more, below 1"),
        ({"warmup_ratio": 3}, "'stages.encoder.warmup_ratio' is 3.0, expected a share between 0 and 1"),
        ({"seed": -1}, "'stages.encoder.seed' is -1, expected at least 0"),
        ({"trains": []}, "'stages.encoder.trains' is [], expected at least one"),
        (
            {"page_training": {"questions": [4, 0]}},
            "questions' is [4, 0], expected one or more numbers",
        ),
        (
            {"page_training": {"symbolic_tokens": {"blanks": [0.5, 0.1]}}},
            "'stages.encoder.page_training.symbolic_tokens.blanks' is [0.5, 0.1], expected two shares",
        ),
        ({"name": "a/b"}, "expected a name that a folder can have"),
        ({"part_learning_rates": {"projector": -1}}, "expected rates of at least 0"),
        ({"part_learning_rates": {"projector": "fast"}}, "'stages.encoder.part_learning_rates.projector' is 'fast'"),
        (
            {"data": {"records": "a.json", "labels": "all"}},
            "'stages.encoder.data.labels' is 'all', expected answers or pub",
        ),
        ({"data": {"records": "a.json", "max_bad": 2}}, "'stages.encoder.data.max_bad' is 2.0, expected a share"),
        (
            {"data": {"pages": {}, "labels": "published"}},
            "'stages.encoder.data.labels: published' needs",
        ),
        ({"config": {"vews": "local"}}, "unknown key 'stages.encoder.config.vews': did you mean 'views'?"),
        ({"config": {"views": "locl"}}, "'stages.encoder.config.views' is 'locl', expected one of both, global, local"),
        ({"config": {"max_tiles": "7"}}, "'stages.encoder.config.max_tiles' is '7', expected int"),
        ({"data": {"pages": {"tles": [1, 2]}}}, "unknown key 'stages.encoder.data.pages.tles': did you mean 'tiles'?"),
        ({"data": {"pages": {"tiles": [1, 2.5]}}}, "'stages.encoder.data.pages.tiles.1' is 2.5, expected int"),
        ({"data": {"pages": {"split": "test"}}}, "'stages.encoder.data.pages': unknown split 'test'"),
        ({"data": {"pages": {"text_px": [20, 80]}}}, "in views of 256, expected at most a quarter"),
        ({"steps": None}, "'stages.encoder.steps' is missing: a stage on pages has no epochs"),
        ({"data": {}}, "needs exactly one of 'pages', 'records' and 'mixture'"),
        ({"data": {"records": "a.json", "mixture": [{"path": "b"}]}}, "needs exactly one of 'pages', 'records' and"),
        ({"data": {"mixture": []}}, "'stages.encoder.data.mixture' is [], expected at least one"),
        ({"data": {"mixture": "a.json"}}, "'stages.encoder.data.mixture' is 'a.json', expected a list"),
        (
            {"data": {"mixture": [{"path": "a", "wieght": 1}]}},
            "unknown key 'stages.encoder.data.mixture.0.wieght': did you",
        ),
        ({"data": {"mixture": [{"weight": 1}]}}, "missing key 'stages.encoder.data.mixture.0.path'"),
        ({"data": {"mixture": [{"path": "a", "passes": 0}]}}, "mixture.0.passes' is 0.0, expected more than 0"),
        ({"data": {"mixture": [{"path": "a", "weight": -1}]}}, "mixture.0.weight' is -1.0, expected more than 0"),
        ({"data": {"mixture": [{"path": "a", "weight": 1}, {"path": "b"}]}}, "gives a weight to some sources only"),
        ({"data": {"mixture": [{"path": "a", "weight": 1, "passes": 1}]}}, "has both 'weight' and 'passes'"),
        ({"data": {"mixture": [{"path": "a"}], "images": "b"}}, "give each source of the mixture its own 'images'"),
        ({"data": {"records": "a.json"}}, "'stages.encoder.page_training' needs 'data.pages'"),
        ({"page_training": {"tiles_read": 3}}, "'stages.encoder.page_training.tiles_read' needs 'objective: read'"),
        ({"page_training": []}, "'stages.encoder.page_training' is list, expected keys and values"),
        ({"data": {"pages": {}, "conversation": "prose"}}, "expected template or plain"),
        ({"start": ["lm"]}, "which is not an earlier stage"),
        (
            {"batch_size": 3, "micro_batch_size": 2},
            "'stages.encoder.batch_size' is 3, expected a multiple of micro_batch_size 2",
        ),
        ({"part_learning_rates": {"gate": 1.0}}, "names 'gate', which this stage does not train"),
        ({"lora": {}}, "'stages.encoder.lora' needs 'language_model' among 'trains'"),
        ({"lora": {"rang": 1}}, "unknown key 'stages.encoder.lora.rang': did you mean 'rank'?"),
        ({"name": "lm"}, "two stages are named 'lm'"),
        ({"config": []}, "'stages.encoder.config' is [], expected keys and values"),
        ({"learning_rate": "fast"}, "expected float"),
    ],
)
def test_problems_of_a_stage(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    recipe = mini_recipe()
    recipe["stages"][0] |= change
    assert expected in message_of(tmp_path, recipe)


def test_free_keys_are_checked_with_all_others(tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["model"]["config"]["projctor_bias"] = False
    recipe["stages"][0]["config"] = {"gate": "mpl"}
    recipe["stages"][1]["data"]["pages"] = {"questons": 3}
    recipe["stages"][2]["batch_size"] = 0
    message = message_of(tmp_path, recipe)
    assert "unknown key 'model.config.projctor_bias': did you mean 'projector_bias'?" in message
    assert "'stages.encoder.config.gate' is 'mpl', expected one of mixture, mlp, attention" in message
    assert "unknown key 'stages.lm.data.pages.questons': did you mean 'questions'?" in message
    assert "'stages.both.batch_size' is 0, expected at least 1" in message


def test_a_recipe_without_stages(tmp_path: Path) -> None:
    recipe = mini_recipe()
    recipe["stages"] = []
    assert "'stages' is [], expected at least one" in message_of(tmp_path, recipe)


def test_an_override_that_is_no_yaml(tmp_path: Path) -> None:
    assert "--set seed=[1: while parsing" in message_of(tmp_path, mini_recipe(), {"seed": "[1"})


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("slime-*.yaml")))
def test_paper_recipes_state_the_label_rule_and_reach_the_published_one(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    last = recipe.stages[-1]
    assert (recipe.model.config["selector_text"], last.data.labels) == ("prompt", "answers")
    (advice,) = re.findall(r"# As published: (.*)", (RECIPES / f"{name}.yaml").read_text())
    published = load_recipe(RECIPES / f"{name}.yaml", dict(re.findall(r"--set (\S+)=(\S+)", advice)))
    assert (published.model.config["selector_text"], published.stages[-1].data.labels) == ("all", "published")


def test_a_number_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, mini_recipe())
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3", 1))
    assert yaml.safe_load(path.read_text())["stages"][0]["learning_rate"] == "1e-3"
    assert load_recipe(path).stages[0].learning_rate == 1e-3
    found = load_recipe(path, {"model.config.text_config.rms_norm_eps": "1e-5"}).model.config["text_config"]
    assert found["rms_norm_eps"] == 1e-5


def test_overrides(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, mini_recipe())
    recipe = load_recipe(path, {"stages.encoder.steps": "20", "seed": "7", "stages.lm.data.pages.noise": "0.5"})
    assert recipe.stages[0].steps == 20
    assert recipe.seed == 7
    assert recipe.stages[1].data.pages is not None
    assert recipe.stages[1].data.pages["noise"] == 0.5
    assert "no stage 'encoders'; did you mean 'encoder'?" in message_of(
        tmp_path, mini_recipe(), {"stages.encoders.steps": "2"}
    )
    assert "'seed' has no keys" in message_of(tmp_path, mini_recipe(), {"seed.x": "2"})


def test_a_resolved_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, mini_recipe()))
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(recipe_dict(recipe)))
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe at"):
        load_recipe(tmp_path / "missing.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("name: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_recipe(path)
    path.write_text("[" * 5000)
    with pytest.raises(ConfigError, match="is not YAML"):
        load_recipe(path)
    path.write_text("just text")
    with pytest.raises(ConfigError, match="expected keys and values"):
        load_recipe(path)
