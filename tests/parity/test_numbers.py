"""Every number of the parity data within its tolerance; and no comparison that cannot fail."""

from __future__ import annotations

import csv
from functools import lru_cache

import pytest

from slime_vlm.model.tiling import choose_grid
from slime_vlm.training.stages import parameters_of
from slime_vlm.weight_names import is_unused, native_names

from .comparison import compare_case, compare_tensor, is_compared, perturbed
from .reference import ParityRoot
from .runner import CaseRun


@lru_cache(maxsize=1)
def cached_run(root: ParityRoot, name: str) -> CaseRun:
    """The last case that was run: its two tests come one after the other."""
    return CaseRun(root, name)


def test_there_are_cases(root: ParityRoot) -> None:
    kinds = {case["kind"] for case in root.cases.values()}
    assert kinds == {"inference", "training"}
    assert all((root.path / case["file"]).is_file() for case in root.cases.values())


def test_case_is_reproduced(root: ParityRoot, case_name: str) -> None:
    run = cached_run(root, case_name)
    assert compare_case(run.recorded, run.computed, run.case) == []
    if "requires_grad_but_no_gradient" in run.case:
        assert sorted(run.silent_parameters) == sorted(run.case["requires_grad_but_no_gradient"])


def test_every_perturbation_is_noticed(root: ParityRoot, case_name: str) -> None:
    run = cached_run(root, case_name)
    unnoticed, tried = [], 0
    for name, tensor in run.recorded.items():
        if is_compared(name, run.case) and tensor.numel():
            tried += 1
            changed = perturbed(name, tensor, run.computed, run.case)
            if compare_tensor(name, changed, run.computed, run.case) is None:
                unnoticed.append(name)
    assert tried > 5
    assert unnoticed == []


def test_grids_of_all_recorded_sizes(root: ParityRoot) -> None:
    path = root.path / "grid" / "grid_choices.csv"
    with path.open() as file:
        rows = [{key: int(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert len(rows) > 100
    wrong = []
    for row in rows:
        grid = choose_grid(row["height"], row["width"])
        ours = (*grid.canvas_size, grid.rows, grid.cols, grid.scaled_height, grid.scaled_width, grid.top, grid.left)
        names = ("grid_height_px", "grid_width_px", "rows", "cols", "resized_height", "resized_width", "paste_y")
        if ours != tuple(row[name] for name in (*names, "paste_x")):
            wrong.append(row)
    assert wrong == []


# Published stage -> parts of the model that it trains here.
STAGES = {
    "stage1a_global_projector": ("projector", "gate"),
    "stage1b_global_attention": ("global_adapter", "gate"),
    "stage2_local": ("local_compressor",),
    "stage3_full": ("projector", "gate", "global_adapter", "local_compressor", "selector", "language_model"),
}


@pytest.mark.parametrize("stage", list(STAGES))
def test_trainable_parameters_of_a_stage(root: ParityRoot, stage: str) -> None:
    for checkpoint, stages in root.json("training/trainable_as_flagged.json").items():
        case = next((name for name, case in root.cases.items() if case["checkpoint"] == checkpoint), None)
        if case is None:
            continue
        model, _processor = root.build(case)
        parameters = {name for name, _ in model.named_parameters()}
        published = stages[stage]["requires_grad"]
        flagged = {name for entry in published for name in native_names(entry)}
        # The position tables are flagged as well but never receive a gradient; here they are buffers.
        assert flagged - parameters == {name for name in flagged if name.endswith("position_table")}
        expected = {name for part in STAGES[stage] for name in parameters_of(model, part)}
        assert flagged & parameters == expected
        assert all(native_names(entry) or is_unused(entry) for entry in published)
