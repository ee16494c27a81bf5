"""Asking a model: answers, conversations, batches, and the picture of where it looked."""
