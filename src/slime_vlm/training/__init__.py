"""Staged training: recipes as data, one Trainer, checkpoints that resume exactly (paper section 3.4)."""
