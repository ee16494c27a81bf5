"""The name of the key-value cache, which transformers 5.24 changed in models, outputs and generation."""

from __future__ import annotations

from dataclasses import fields

from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""`cache` from 5.24 on, `past_key_values` before; arguments and fields of transformers are looked up by it."""
