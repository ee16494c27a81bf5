"""Exact match on held-out rendered pages, and how well the vision encoder reads them."""
