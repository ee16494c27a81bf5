"""The reports of a run: progress, curves, throughput, environment, trackers, the model card."""
