"""Exact match on held-out rendered pages, and the accuracy of the vision encoder on them."""
