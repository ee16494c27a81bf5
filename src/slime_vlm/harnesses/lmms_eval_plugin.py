"""Entry point of the group `lmms_eval.models`. Only lmms-eval imports this module."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Return the manifest for `--model slime_vlm`. The model `slime` of lmms-eval is the authors' code."""
    return ModelManifest(model_id="slime_vlm", simple_class_path="slime_vlm.harnesses.lmms_eval.SlimeVlm")
