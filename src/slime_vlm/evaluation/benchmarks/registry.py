"""Register all benchmarks by name, and parse `--tasks`.

To add a benchmark, write one file in this folder that defines a `Benchmark` (see `chartqa.py`), import it
below and add one line to `BENCHMARKS`. The command line, the runner, the scoring and the reports need no change. The
tests then ask for two more things: a fixture in `tests/evaluation/make_fixtures.py`, on which they run every benchmark,
and a line in the table of docs/evaluation.md, which `slime eval tasks` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slime_vlm.errors import ConfigError, nearest
from slime_vlm.evaluation.benchmarks import (
    amber,
    amber_generative,
    chartqa,
    charxiv,
    charxiv_descriptive,
    docvqa,
    gqa,
    hallusion_bench,
    hr_bench,
    llava_bench,
    mathverse,
    mathvision,
    mathvista,
    mm_vet,
    mmbench,
    mme,
    mme_realworld,
    mmhal,
    mmmu,
    mmmu_pro,
    mmstar,
    ocrbench,
    ocrbench_v2,
    pope,
    realworldqa,
    scienceqa,
    seed_bench,
    textvqa,
    video_mme,
    vizwiz,
    vqav2,
    vstar,
)
from slime_vlm.evaluation.benchmarks.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        vqav2.BENCHMARK,
        gqa.BENCHMARK,
        vizwiz.BENCHMARK,
        textvqa.BENCHMARK,
        textvqa.WITH_OCR,
        scienceqa.BENCHMARK,
        pope.BENCHMARK,
        mme.BENCHMARK,
        mmbench.BENCHMARK,
        mmbench.CHINESE,
        seed_bench.BENCHMARK,
        mmmu.BENCHMARK,
        mmmu_pro.STANDARD,
        mmmu_pro.VISION,
        mmstar.BENCHMARK,
        realworldqa.BENCHMARK,
        hallusion_bench.BENCHMARK,
        mathvista.BENCHMARK,
        mathverse.BENCHMARK,
        mathvision.BENCHMARK,
        mathvision.FULL,
        chartqa.BENCHMARK,
        charxiv.BENCHMARK,
        charxiv_descriptive.BENCHMARK,
        docvqa.BENCHMARK,
        docvqa.INFOGRAPHICS,
        ocrbench.BENCHMARK,
        ocrbench_v2.BENCHMARK,
        amber.BENCHMARK,
        amber.WITH_SUFFIX,
        amber_generative.BENCHMARK,
        hr_bench.BENCHMARK,
        hr_bench.LARGER,
        vstar.BENCHMARK,
        mme_realworld.BENCHMARK,
        mme_realworld.CHINESE,
        video_mme.BENCHMARK,
        mm_vet.BENCHMARK,
        llava_bench.BENCHMARK,
        mmhal.BENCHMARK,
    )
}
"""Every benchmark by its name on the command line."""


@dataclass(frozen=True)
class Task:
    """A benchmark and one of its splits.

    Attributes:
        benchmark: The benchmark.
        split: Name of the split.
    """

    benchmark: Benchmark
    split: str

    @property
    def name(self) -> str:
        """Name in results and run folders: `docvqa`, or `docvqa-test` for a split that is not the default one."""
        default = self.split == self.benchmark.source.split
        return self.benchmark.name if default else f"{self.benchmark.name}-{self.split}"


def task_table() -> str:
    """Return all benchmarks as a Markdown table, for the command line and the documentation."""
    lines = ["| task | benchmark | source | split | metric | licence |", "| --- | --- | --- | --- | --- | --- |"]
    for benchmark in BENCHMARKS.values():
        source = benchmark.source
        data_set = source.repo + (f" ({source.config})" if source.config else "")
        split = source.split + (f", {source.test_split} (server)" if source.test_split else "")
        judge = "; a judge reads what rules cannot" if benchmark.judged and benchmark.main else ""
        cells = [f"`{benchmark.name}`", benchmark.title, data_set, split, benchmark.metric + judge, benchmark.licence]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def find_tasks(names: str, hub_ids: Mapping[str, str] | None = None) -> list[Task]:
    """Return the tasks that a list such as `textvqa,docvqa:test` names.

    Args:
        names: Names of benchmarks, each with an optional split, separated by commas.
        hub_ids: Hub data sets to use instead of the usual ones, by name of the benchmark.

    Raises:
        ConfigError: A name is unknown or occurs twice.
    """
    hub_ids = hub_ids or {}
    tasks: list[Task] = []
    for text in filter(None, (part.strip() for part in names.split(","))):
        name, _, split = text.partition(":")
        if name not in BENCHMARKS:
            raise ConfigError(f"--tasks: '{name}' is not a benchmark; {nearest(name, BENCHMARKS)}")
        benchmark = BENCHMARKS[name]
        if name in hub_ids:
            benchmark = replace(benchmark, source=replace(benchmark.source, repo=hub_ids[name]))
        task = Task(benchmark, split or benchmark.source.split)
        if task in tasks:
            raise ConfigError(f"--tasks: {text} occurs twice; name it once")
        tasks.append(task)
    if not tasks:
        raise ConfigError("--tasks is empty, expected names such as textvqa,pope; `slime eval tasks` lists them")
    unused = sorted(hub_ids.keys() - {task.benchmark.name for task in tasks})
    if unused:
        raise ConfigError(f"--hub-id {unused[0]}=…: '{unused[0]}' is not among --tasks {names}")
    return tasks
