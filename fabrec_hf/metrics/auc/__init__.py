"""The `evaluate` module for the area under the curve: `evaluate.load` takes the path of this folder."""
