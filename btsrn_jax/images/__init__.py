"""Picture files in and out; the eight flips and rotations."""
