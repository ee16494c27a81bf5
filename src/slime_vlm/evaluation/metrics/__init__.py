"""Metrics: text in, number out. One file per family; none knows a model, a file or a benchmark's records."""

from __future__ import annotations

from slime_vlm.evaluation.metrics.exact import exact_match

__all__ = ["exact_match"]
