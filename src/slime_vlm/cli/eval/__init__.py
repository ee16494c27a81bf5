"""`slime eval`: benchmarks, exact match on rendered pages, and ablations."""

from slime_vlm.cli.eval.app import app

__all__ = ["app"]
