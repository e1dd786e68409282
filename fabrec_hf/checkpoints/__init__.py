"""Checkpoints by name: where they are, loading them whole or not at all, and what was measured of them."""
