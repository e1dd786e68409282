"""The `evaluate` module for jitter over a video: `evaluate.load` takes the path of this folder."""
