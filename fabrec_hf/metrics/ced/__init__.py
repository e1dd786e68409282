"""The `evaluate` module for the error curve: `evaluate.load` takes the path of this folder."""
