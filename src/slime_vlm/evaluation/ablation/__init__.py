"""Less is more, measured: what fewer image tokens cost and save, on the same questions throughout."""
