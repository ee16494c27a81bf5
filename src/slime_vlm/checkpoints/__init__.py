"""Checkpoints: load models from files, and write them."""
