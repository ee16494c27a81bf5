"""Adapters to engines that serve models on many machines. Each engine is installed by those who use it."""
