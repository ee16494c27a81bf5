"""Labels of tokens that no loss sees."""

IGNORED_LABEL = -100
"""Label of a token that is not supervised, as in transformers and torch's cross-entropy."""
