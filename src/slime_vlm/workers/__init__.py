"""Processes beside this one that do work which may take too much memory or time, or crash."""
