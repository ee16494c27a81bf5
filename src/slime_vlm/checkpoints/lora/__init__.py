"""Low-rank adapters (LoRA): their weights, adapter folders, and merging into the base."""
