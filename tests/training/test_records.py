from __future__ import annotations

import json
from pathlib import Path

import pytest

from slime_vlm.checkpoints.loading import load
from slime_vlm.data import RecordDataset, open_source
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.processing.chat_styles import get_style
from slime_vlm.training.records import BadRecords, RecordCollator, part_of_limits
from slime_vlm.training.run import train
from tests.tiny_reader import tiny_reader
from tests.training.mini import losses, records_recipe, write_parts, write_recipe, write_records


def dataset_of(path: Path, images: Path | None = None) -> RecordDataset:
    return RecordDataset(open_source(path, images))


@pytest.mark.parametrize("as_lines", [False, True])
def test_json_and_json_lines(tmp_path: Path, as_lines: bool) -> None:
    dataset = dataset_of(write_records(tmp_path, as_lines))
    assert len(dataset) == 3
    assert dataset[0]["images"][0].size == (70, 60)
    assert dataset[0]["conversations"][1]["value"] == "red"
    assert dataset[2]["images"] == []


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write_records(tmp_path / "images")
    records = tmp_path / "records.json"
    records.write_text(path.read_text())
    assert len(dataset_of(records, tmp_path / "images")[1]["images"]) == 1
    with pytest.raises(DataError, match="record 'blue'"):
        dataset_of(records)[1]


def test_missing_file_and_missing_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no records at .*: expected a JSON or JSONL file"):
        dataset_of(tmp_path / "none.json")
    path = write_records(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match="record 'blue'") as caught:
        dataset_of(path)[1]
    assert "\n" not in str(caught.value)


def test_a_text_file_named_png(tmp_path: Path) -> None:
    path = write_records(tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match="record 'red'"):
        dataset_of(path)[0]


def test_turns_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps([{"id": "x", "conversations": [{"from": "nobody", "value": "?"}]}]))
    _, processor = tiny_reader()
    collator = RecordCollator(dataset_of(path), processor)
    (bad,) = collator([0])["bad_records"]
    assert bad.reason.startswith(f"{path}: record 'x': turn 0 is")


def test_several_images_in_a_record(tmp_path: Path) -> None:
    path = write_records(tmp_path)
    turns = [{"from": "human", "value": "<image><image>Which is red?"}, {"from": "gpt", "value": "the first"}]
    path.write_text(json.dumps([{"id": "x", "image": ["a.png", "b.png"], "conversations": turns}]))
    _, processor = tiny_reader()
    batch = RecordCollator(dataset_of(path), processor)([0])
    assert batch.pop("bad_records") == []
    assert batch["image_grids"].shape == (2, 2)


def test_batches_of_both_styles(tmp_path: Path) -> None:
    dataset = dataset_of(write_records(tmp_path))
    _, processor = tiny_reader()
    batch = RecordCollator(dataset, processor)([0, 2])
    assert batch.pop("bad_records") == []
    assert batch["image_grids"].shape == (1, 2)
    assert batch["pixel_values"].shape[0] == 1 + int(batch["image_grids"].prod())
    decode = processor.tokenizer.decode
    assert "red" in decode(batch["input_ids"][0][batch["labels"][0] != -100])
    plain = RecordCollator(dataset, processor, "plain")([0])
    assert decode(plain["input_ids"][0][plain["labels"][0] != -100]) == "red\n"
    assert "Colour" not in decode(plain["input_ids"][0])


def test_both_rules_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    turns = [("human", "What?"), ("gpt", "Red."), ("human", "Sure?"), ("gpt", "Yes.")]
    path.write_text(json.dumps([{"conversations": [{"from": who, "value": text} for who, text in turns]}]))
    dataset, (_, processor) = dataset_of(path), tiny_reader()
    answers = RecordCollator(dataset, processor, labels="answers")([0])
    published = RecordCollator(dataset, processor, labels="published")([0])
    assert answers["input_ids"].equal(published["input_ids"])
    assert processor.tokenizer.decode(answers["labels"][answers["labels"] != -100]) == "Red.<|eot_id|>Yes.<|eot_id|>"
    # This tokenizer begins no text by itself, so that the published count of the second round is off by one.
    assert bool((published["labels"] == -100).all())


def test_the_published_rule_needs_a_published_conversation(tmp_path: Path) -> None:
    dataset, (_, processor) = dataset_of(write_records(tmp_path)), tiny_reader()
    processor.style = get_style("pages")
    with pytest.raises(ConfigError, match="the model's conversation is pages; expected one with a published"):
        RecordCollator(dataset, processor, labels="published")


def with_bad_ones(folder: Path) -> Path:
    """Ten records, of which number 3 has a damaged image and number 4 roles out of turn."""
    path = write_records(folder)
    records = json.loads(path.read_text())
    records = [{**records[i % 3], "id": f"r{i}"} for i in range(10)]
    records[3]["image"] = "damaged.png"
    (folder / "damaged.png").write_bytes((folder / "a.png").read_bytes()[:60])
    records[4] = {"id": "r4", "conversations": [{"from": "gpt", "value": "2"}, {"from": "gpt", "value": "2"}]}
    path.write_text(json.dumps(records))
    return path


def test_a_bad_record_is_replaced_by_the_next(tmp_path: Path) -> None:
    dataset, (_, processor) = dataset_of(with_bad_ones(tmp_path)), tiny_reader()
    collator = RecordCollator(dataset, processor, limits=[2])
    batch, expected = collator([3, 0]), collator([5, 0])
    assert [record.index for record in batch.pop("bad_records")] == [3, 4]
    assert expected.pop("bad_records") == []
    assert all(batch[key].equal(expected[key]) for key in expected)
    said: list[str] = []
    tally = BadRecords(dataset, [2], said.append)
    for _ in range(2):
        tally.add(collator([3])["bad_records"])
    assert [line.split(": ")[2] for line in said] == ["record 'r3'", "record 'r4'"]
    with pytest.raises(
        DataError,
        match=r"record 'r4'.*bad record number 2 of 10, expected at most 1: repair the data .* or raise data.max_bad",
    ):
        BadRecords(dataset, [1], said.append).add(collator([3])["bad_records"])


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_records_in_a_run(tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = {"records": str(with_bad_ones(tmp_path / "bad")), "max_bad": 0.2, "workers": workers}
    recipe = records_recipe(tmp_path / "data", steps=3, batch_size=5, data=data)
    path = write_recipe(tmp_path, recipe)
    train(path, tmp_path / "run")
    said = capfd.readouterr().err
    assert said.count("left out: ") == 2
    listed = (tmp_path / "run" / "3" / "bad_records_0.jsonl").read_text()
    assert [json.loads(line)["place"] for line in listed.splitlines()] in ([3, 4], [4, 3])
    assert "2 records were left out, see" in said
    with pytest.raises(DataError, match=r"record 'r\d'.*bad record number 2 of 10, expected at most 1") as caught:
        train(path, tmp_path / "stopped", overrides=["stages.3.data.max_bad=0.1"])
    assert "\n" not in str(caught.value)


def test_bad_records_of_a_mixture(tmp_path: Path) -> None:
    good = open_source(write_records(tmp_path / "good"))
    dataset = RecordDataset(good, open_source(with_bad_ones(tmp_path / "bad")))
    _, processor = tiny_reader()
    limits = dataset.limits(0.2)
    assert limits == [0, 2]
    collator = RecordCollator(dataset, processor, limits=limits)
    # The record before is of another source, and the one that steps in is of the same.
    bad = collator([2, 3 + 3])["bad_records"]
    assert [dataset.locate(record.index) for record in bad] == [(1, 3), (1, 4)]
    said: list[str] = []
    file = tmp_path / "run" / "bad_records_0.jsonl"
    for _ in range(2):
        # What an earlier process has written already is not written again.
        BadRecords(dataset, limits, said.append, file).add(bad)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["source"], line["place"]) for line in lines] == [
        (str(tmp_path / "bad" / "records.json"), 3 + i) for i in (0, 1)
    ]
    assert "record 'r3'" in lines[0]["reason"]
    assert "damaged.png" in lines[0]["reason"]
    # Three more sound records in the other source make no difference: a source has a limit of its own.
    with pytest.raises(
        DataError, match=r"bad.records\.json: record 'r4'.*bad record number 2 of 10, expected at most 1"
    ):
        BadRecords(dataset, dataset.limits(0.1), said.append).add(bad)


def test_template_training_overfits(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, records_recipe(tmp_path / "data", config={"selector_noise": 0.0}, steps=60))
    folder = train(path, tmp_path / "run")
    curve = losses(tmp_path / "run" / "3")
    assert curve[60] < 0.2 * curve[3]
    model, processor = load(folder, device="cpu")
    # What held for the stage alone is not written into the model.
    assert model.config.selector_noise == 0.1
    assert model.config.max_sequence_length is None
    assert processor.tokenizer.padding_side == "left"


def test_alternating_stages_in_the_plain_style(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path / "data")
    common = {
        "data": {"records": str(tmp_path / "data" / "images.json"), "conversation": "plain"},
        "epochs": 15.0,
        "steps": None,
        "batch_size": 2,
        "micro_batch_size": 1,
        "learning_rate": 3e-2,
        "bf16": False,
    }
    images = json.loads((tmp_path / "data" / "records.json").read_text())[:2]
    (tmp_path / "data" / "images.json").write_text(json.dumps(images))
    recipe["stages"] = [
        {"name": "1a", "trains": ["projector", "gate"], "config": {"views": "global", "gate": "mlp"}, **common},
        {
            "name": "1b",
            "trains": ["global_adapter", "gate"],
            "config": {"views": "global", "gate": "attention"},
            **common,
        },
        {
            "name": "2",
            "trains": ["local_compressor"],
            "config": {"views": "local", "selector_top_p": 1.0},
            **common,
        },
    ]
    folder = train(write_recipe(tmp_path, recipe), tmp_path / "run")
    curve = losses(tmp_path / "run" / "1a")
    assert sorted(curve) == list(range(1, 16))
    assert curve[15] < curve[1]
    first, _ = load(tmp_path / "run" / "1a" / "model", device="cpu")
    last, _ = load(folder, device="cpu")
    assert last.config.views == "both"
    assert last.config.gate == "mixture"
    moved = {
        name.split(".")[1]
        for (name, before), after in zip(first.state_dict().items(), last.state_dict().values(), strict=True)
        if not before.equal(after)
    }
    assert moved == {"global_adapter", "local_compressor"}


def test_parts_that_do_not_fit_the_stated_config(tmp_path: Path) -> None:
    recipe = records_recipe(tmp_path / "data")
    vision, _ = write_parts(tmp_path / "data")
    config = json.loads((vision / "config.json").read_text())
    recipe["model"]["config"]["vision_config"] = {**config, "hidden_size": 24, "intermediate_size": 40}
    with pytest.raises(ConfigError, match=r"vision and .* do not fit the config") as caught:
        train(write_recipe(tmp_path, recipe), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_each_process_counts_its_part() -> None:
    assert part_of_limits([5, 0, 17], 8, [1.0, 1.0, 0.5]) == [1, 0, 3]
    assert part_of_limits([5, 0, 17], 1, [1.0, 3.0, 0.5]) == [5, 0, 17]
    # In the second pass a process meets records that others had in the first, and in the eighth it may have met all.
    assert part_of_limits([5, 0, 17], 8, [2.0, 2.0, 20.0]) == [2, 0, 17]
