"""Stands in for MediaPipe behind the teacher's pipe: its points follow from the picture.

Vertex v is at (v, 2 v) / 10 plus the middle pixel's red. Where that is black there is no face.
"""

import struct
import sys

import numpy as np


while header := sys.stdin.buffer.read(8):
    height, width = struct.unpack("<ii", header)
    pixels = np.frombuffer(sys.stdin.buffer.read(3 * height * width), np.uint8).reshape(height, width, 3)
    inside = pixels[height // 2, width // 2, 0]
    points = np.arange(478)[:, None] * np.array([0.1, 0.2]) + float(inside)
    points = points if inside else np.full((478, 2), np.nan)
    sys.stdout.buffer.write(points.astype(np.float32).tobytes())
    sys.stdout.buffer.flush()
