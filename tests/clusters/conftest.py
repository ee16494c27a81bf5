"""Clusters for the tests: raylets of their own on this machine, each with one CPU. Run by `make test-ray`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A token would be written to the home folder.
    "RAY_AUTH_MODE": "disabled",
    # Workers have one CPU each.
    "OMP_NUM_THREADS": "1",
}

# Ray gives up a raylet whose own processes take more than 15 seconds to start, as they do on a busy machine.
_START_TRIES = 4


@contextmanager
def two_raylets() -> Iterator[Any]:
    """Start a cluster of two raylets with a CPU each."""
    from ray.cluster_utils import Cluster

    # Ray takes 127.0.0.1 in an address for the address of the machine, so clusters listen there.
    options = {"num_cpus": 1, "include_dashboard": False}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=options))
    try:
        patiently(lambda: cluster.add_node(num_cpus=1))
        yield cluster
    finally:
        cluster.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    for number in range(_START_TRIES):
        try:
            return start()
        except Exception:
            if number == _START_TRIES - 1:
                raise
    raise AssertionError


@pytest.fixture
def cluster() -> Iterator[Any]:
    with two_raylets() as found:
        yield found


def workers_of(cluster: Any) -> list[int]:
    """Processes in which slime's workers answer records."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent in raylets and title.startswith(b"ray::Worker"):
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
