"""The `evaluate` module for the failure rate: `evaluate.load` takes the path of this folder."""
