"""The cost of a run before it starts: the dry run, token counts of samples, FLOPs of a step."""
