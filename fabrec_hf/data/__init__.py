"""Face data as `datasets.Dataset`: Parquet readers and the ways to split what they read."""

from .parquet import load_faces
from .splits import first_shots, held_out_faces, random_shots, validation_split


__all__ = ["first_shots", "held_out_faces", "load_faces", "random_shots", "validation_split"]
