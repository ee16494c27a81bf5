"""Less is more, measured: what fewer image tokens cost in accuracy and save in time, on the same questions throughout."""
