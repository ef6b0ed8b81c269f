"""The step, and the run around it."""
