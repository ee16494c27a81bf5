"""What a run will cost: the dry run, token counts of samples, FLOPs of a step."""
