"""Registration with transformers: its Auto classes and pipelines know SliME once this module is imported."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

# Not from `transformers` itself: older versions hide the class there unless torchvision is installed.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration, SlimeModel
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor

AutoConfig.register(SlimeConfig.model_type, SlimeConfig, exist_ok=True)
AutoModel.register(SlimeConfig, SlimeModel, exist_ok=True)
AutoModelForImageTextToText.register(SlimeConfig, SlimeForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(SlimeConfig, image_processor_classes={"pil": SlimeImageProcessor}, exist_ok=True)
AutoProcessor.register(SlimeConfig, SlimeProcessor, exist_ok=True)
