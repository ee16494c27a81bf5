"""Measure a model: benchmarks with their metrics, exact match on rendered pages, and ablations."""
