"""Readers of the sets that others published."""
