"""Asking a model: answers, conversations, batches, and the image of where it looked."""
