"""Landmarks with ONNX Runtime, NumPy and Pillow alone: neither PyTorch nor this package is needed.

First: fabrec export --format onnx --output exported
Then:  python examples/onnx_runtime.py exported/model.onnx examples/astronaut.jpg 181,89,87,89
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


model, picture, numbers = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}

# The box, brow to chin, grows by its margins and becomes a square; what lies beyond the picture is black.
x, y, width, height = (float(number) for number in numbers.split(","))
grown = height * (1 + about["extend_top"] + about["extend_bottom"])
side = max(width, grown)
left = x + width / 2 - side / 2
top = y - about["extend_top"] * height + grown / 2 - side / 2

image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
size = about["image_size"]
canvas = image.crop((int(left) - 1, int(top) - 1, int(left + side) + 2, int(top + side) + 2))  # black beyond
inner = (left - int(left) + 1, top - int(top) + 1)
face = canvas.resize((size, size), Image.Resampling.BILINEAR, (*inner, inner[0] + side, inner[1] + side))
pixels = (np.asarray(face, np.float32) / 255 - about["image_mean"]) / about["image_std"]
inputs = pixels.astype(np.float32).transpose(2, 0, 1)[None]

landmarks, scores = session.run(["landmarks", "scores"], {"pixel_values": inputs})
points = landmarks[0] * side + [left, top] - 0.5  # pixel centers at integers
for name, (px, py), score in zip(about["point_names"], points, scores[0], strict=True):
    print(f"{name:24} {px:8.2f} {py:8.2f} {score:6.3f}")
