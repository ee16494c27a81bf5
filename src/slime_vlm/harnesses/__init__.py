"""Thin adapters to the evaluation harnesses of others, which bring their own tasks and scores: docs/evaluation.md."""
