"""Ask a model: single answers, conversations, batches, and drawings of the kept tokens."""
