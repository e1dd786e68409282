"""The `evaluate` module for the normalized mean error: `evaluate.load` takes the path of this folder."""
