"""Scores of detectors and autoencoders, and the tables and figures that show them."""
