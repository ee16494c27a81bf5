"""Bad records that were counted before a run was stopped, taken up by as many processes or by others."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from slime_vlm.training.records import BadRecord, BadRecords, part_of_limits, share_of_seen
from slime_vlm.training.trainer import SlimeTrainer


def test_shares_by_hand() -> None:
    two = [[3, 40], [5, 8]]
    assert [share_of_seen(two, process, 2) for process in range(2)] == [{3, 40}, {5, 8}], "each its own"
    assert share_of_seen(two, 0, 1) == {3, 5, 8, 40}
    assert [share_of_seen(two, process, 3) for process in range(3)] == [{3, 40}, {5}, {8}]
    # One record that both met counts once.
    assert [share_of_seen([[3, 8], [8], [8]], process, 2) for process in range(2)] == [{3}, {8}]
    assert [share_of_seen([[7, 9, 11]], process, 2) for process in range(2)] == [{7, 11}, {9}]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_the_sum_stays_and_no_process_is_past_its_part(processes: int) -> None:
    # Records 0 to 99 are of one source, those from 100 on of another; as many are bad as may be.
    bad = [set(range(0, 20, 2)), set(range(130, 152, 7))]
    limits = part_of_limits([len(source) for source in bad], processes, [1.0, 1.0])
    lists = [[index for source in bad for index in source if index % 5 == process] for process in range(5)]
    shares = [share_of_seen(lists, process, processes) for process in range(processes)]
    assert sum(map(len, shares)) == 14
    assert set().union(*shares) == bad[0] | bad[1]
    for share in shares:
        assert all(len(share & source) <= limit for source, limit in zip(bad, limits, strict=True))


def take_up(folder: Path, process: int, processes: int) -> Any:
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=processes, process_index=process),
        bad_records=SimpleNamespace(seen=set()),
        train_dataset=None,
        speed=None,
        accept_data=False,
        _loss_sum=torch.zeros(()),
        _sums={},
    )
    SlimeTrainer._restore_sums(trainer, folder)  # type: ignore[arg-type]
    return trainer


def test_a_checkpoint_of_eleven_processes(tmp_path: Path) -> None:
    """Process 10 is the eleventh, whatever the order of names says; the first has written what the curve shows."""
    for rank in range(11):
        kept = {"loss": float(rank), "sums": {"kept": [float(rank)]}, "bad_records": [100 + rank]}
        (tmp_path / f"sums_{rank}.json").write_text(json.dumps(kept))
    for rank in range(11):
        same = take_up(tmp_path, rank, 11)
        assert (same._loss_sum.item(), same.bad_records.seen) == (rank, {100 + rank})
    others = [take_up(tmp_path, rank, 2) for rank in range(2)]
    assert [other._loss_sum.item() for other in others] == [5.0, 5.0]
    assert [other._sums for other in others] == [{"kept": [0.0]}] * 2
    assert [len(other.bad_records.seen) for other in others] == [6, 5]


def test_a_list_that_a_kill_left_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "bad_records_0.jsonl"
    path.write_text('{"index": 1}\n{"index": 2')
    dataset: Any = SimpleNamespace(
        locate=lambda index: (0, index), sources=[SimpleNamespace(name="a")], lengths=[9], starts=[0, 9]
    )
    for _ in range(2):
        records = BadRecords(dataset, [9], lambda line: None, path)
        records.add([BadRecord(1, "one"), BadRecord(2, "two")])
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"index": 1}', '{"index": 2']
    assert [json.loads(line)["index"] for line in lines[2:]] == [2]
