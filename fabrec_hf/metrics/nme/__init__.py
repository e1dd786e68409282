"""The `evaluate` module for the normalised mean error: `evaluate.load` takes the path of this folder."""
