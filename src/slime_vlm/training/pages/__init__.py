"""Training of the shipped models nano and pages on rendered pages: batches, labels, losses, objectives and a model from nothing.

Nothing here is from the paper. The loss of the paper is in `slime_vlm.model.text_loss`.
"""
