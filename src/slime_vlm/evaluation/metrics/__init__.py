"""Metrics: pure functions from texts to numbers, one file per family, without models, files or records."""

from __future__ import annotations

from slime_vlm.evaluation.metrics.exact import exact_match

__all__ = ["exact_match"]
