"""Checkpoints: from files to models and back."""
