"""What lmms-eval finds by the entry point group `lmms_eval.models`; imported by lmms-eval alone."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Names the model for `--model slime_vlm`; lmms-eval's own `slime` is the authors' code."""
    return ModelManifest(model_id="slime_vlm", simple_class_path="slime_vlm.harnesses.lmms_eval.SlimeVlm")
