"""Every number of the parity data within its tolerance; and no comparison that cannot fail."""

from __future__ import annotations

import csv
from collections import Counter
from functools import lru_cache

import pytest

from slime_vlm.checkpoints.published.weight_names import native_names
from slime_vlm.model.tiling import choose_grid
from slime_vlm.training.parts import parameters_of
from tests.parity.comparison import compare_case, is_input, perturbed
from tests.parity.reference import ParityRoot
from tests.parity.runner import CaseRun


@lru_cache(maxsize=1)
def cached_run(root: ParityRoot, name: str) -> CaseRun:
    """The last case that was run: its two tests come one after the other."""
    return CaseRun(root, name)


def test_there_are_cases(root: ParityRoot) -> None:
    kinds = {case["kind"] for case in root.cases.values()}
    assert kinds == {"inference", "training"}
    files = {str(path.relative_to(root.path)) for path in (root.path / "cases").iterdir()}
    assert sorted(case["file"] for case in root.cases.values()) == sorted(files)


def test_case_is_reproduced(root: ParityRoot, case_name: str, count: Counter[str]) -> None:
    run = cached_run(root, case_name)
    assert compare_case(run.recorded, run.computed, run.case) == []
    if "requires_grad_but_no_gradient" in run.case:
        assert sorted(run.silent_parameters) == sorted(run.case["requires_grad_but_no_gradient"])
    count["cases"] += 1


def test_every_perturbation_is_noticed(root: ParityRoot, case_name: str, count: Counter[str]) -> None:
    """Each recorded tensor in turn, with one element moved by ten times its tolerance; none is left out."""
    run = cached_run(root, case_name)
    unnoticed = []
    for name, tensor in run.recorded.items():
        changed = perturbed(name, tensor, run.computed, run.case)
        if is_input(name):
            found = compare_case(run.recorded, run.computed_with(name, changed), run.case)
        else:
            found = compare_case({name: changed}, run.computed, run.case)
        if not found:
            unnoticed.append(name)
    assert len(run.recorded) > 5
    assert unnoticed == []
    count["tensors, each noticed when perturbed"] += len(run.recorded)


GRID_FIELDS = (
    "grid_height_px",
    "grid_width_px",
    "rows",
    "cols",
    "resized_height",
    "resized_width",
    "paste_y",
    "paste_x",
)


def test_grids_of_all_recorded_sizes(root: ParityRoot, count: Counter[str]) -> None:
    path = root.path / "grid" / "grid_choices.csv"
    with path.open() as file:
        rows = [{key: int(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert len(rows) > 100
    # Width and height are what is asked; `failure` is always empty.
    assert set(rows[0]) == {"width", "height", *GRID_FIELDS}
    for row in rows:
        grid = choose_grid(row["height"], row["width"])
        sides = (*grid.canvas_size, grid.rows, grid.cols, grid.scaled_height, grid.scaled_width, grid.top, grid.left)
        ours = {"width": row["width"], "height": row["height"], **dict(zip(GRID_FIELDS, sides, strict=True))}
        assert ours == row
        assert all(ours != row | {field: row[field] + 1} for field in GRID_FIELDS)
    count["grids"] += len(rows)


# Published stage -> parts of the model that it trains here, and published tensors that are flagged there although
# nothing reads them (noise weights) or no gradient reaches them (position tables, which are buffers here).
STAGES = {
    "stage1a_global_projector": (("projector", "gate"), ["model.mm_projector.w_noise"]),
    "stage1b_global_attention": (
        ("global_adapter", "gate"),
        ["model.mm_projector.w_noise", "model.mm_projector.attn.pos_embed"],
    ),
    "stage2_local": (("local_compressor",), ["model.sampler.post_qformer.pos_embed"]),
    "stage3_full": (
        ("projector", "gate", "global_adapter", "local_compressor", "selector", "language_model"),
        ["model.mm_projector.w_noise"],
    ),
}


def trained_here(root: ParityRoot, checkpoint: str, stage: str) -> list[str]:
    """What a stage trains here, in published names."""
    case = next(name for name, case in root.cases.items() if case["checkpoint"] == checkpoint)
    model, _processor = root.build(case)
    parts, flagged_alone = STAGES[stage]
    trained = {name for part in parts for name in parameters_of(model, part)}
    published = [name for name, _ in root.published_weights(root.cases[case])]
    return [name for name in published if trained & set(native_names(name))] + flagged_alone


@pytest.mark.parametrize("stage", list(STAGES))
def test_trainable_parameters_of_a_stage(root: ParityRoot, stage: str, count: Counter[str]) -> None:
    checkpoints = root.json("training/trainable_as_flagged.json")
    assert set(checkpoints) == {case["checkpoint"] for case in root.cases.values()}
    for checkpoint, stages in checkpoints.items():
        assert set(stages) == set(STAGES)
        recorded, ours = stages[stage]["requires_grad"], trained_here(root, checkpoint, stage)
        assert len(recorded) >= 6
        assert sorted(ours) == sorted(recorded)
        # A list with one name less, or one more, is another list.
        for index in range(len(recorded)):
            assert sorted(ours) != sorted(recorded[:index] + recorded[index + 1 :])
        assert sorted(ours) != sorted([*recorded, "model.mm_projector.mean"])
        count["lists of trainable parameters"] += 1
