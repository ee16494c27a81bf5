"""Training of the shipped models on pages: batches, labels, losses, objectives and a model from nothing.

Nothing here is from the paper. The loss of the paper is in `slime_vlm.model.text_loss`.
"""
