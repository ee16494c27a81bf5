"""Thin adapters to lmms-eval and VLMEvalKit, which bring their own tasks and scores: see docs/evaluation.md."""
