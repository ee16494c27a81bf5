"""Ablation of a trained model: what fewer image tokens, other views and other image sizes cost and save."""
