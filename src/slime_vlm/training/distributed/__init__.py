"""Training on several processes with FSDP2 or DeepSpeed."""
