"""Low-rank adapters (LoRA): weights, adapter folders, and merging into the base."""
