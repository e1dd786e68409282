"""Readers and writers of a user's own annotations."""
