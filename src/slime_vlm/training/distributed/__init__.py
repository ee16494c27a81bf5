"""Training on several processes: FSDP2 and DeepSpeed."""
