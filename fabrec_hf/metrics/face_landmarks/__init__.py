"""The `evaluate` module for face landmarks: `evaluate.load` takes the path of this folder."""
