"""Measuring a model: pure metrics, and exact match on rendered pages."""
