"""The label of tokens that no loss uses."""

IGNORED_LABEL = -100
"""Label of a token that is not supervised, as in transformers and in torch's cross-entropy."""
