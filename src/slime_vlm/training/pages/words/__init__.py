"""The language side of a page model with an open vocabulary, taught on tokens whose characters are given as labels."""
