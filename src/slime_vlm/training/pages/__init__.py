"""How nano is taught: rendered pages as batches, their labels and losses, and a model from nothing.

Nothing here is from the paper; its own loss is `slime_vlm.model.text_loss`.
"""
