"""What a run tells: progress, curves, throughput, environment, trackers, the model card."""
