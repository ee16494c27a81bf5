"""Report what a model costs, and what this machine can do."""
