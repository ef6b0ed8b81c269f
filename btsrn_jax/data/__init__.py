"""Pairs of LR and HR images, stores of them, and the patches of a batch."""
