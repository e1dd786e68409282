"""What the command line lists and other rooms act on, in a module that loads at once.

A help text or a mistake in an argument is answered without PyTorch or NumPy. So nothing here imports anything.
"""

__all__ = ["COLUMNS", "DEFAULT_RANK", "FORMATS", "MAIN", "PICTURE_NAME", "PROTOCOLS", "TEMPLATES", "TO_SCHEMES"]

PROTOCOLS = ("default", "paper")
"""How a detector is scored: as it is, or with the paper's decoding."""

FORMATS = {"onnx": ("model.onnx",), "openvino": ("openvino_model.xml", "openvino_model.bin"), "torch": ("model.pt2",)}
"""The files that are written for each runtime; the first one names it."""

DEFAULT_RANK = 32
"""Directions that a delta keeps of each convolution. What each rank costs after how many faces is measured in
docs/experiments.md."""

MAIN = "main"
"""The revision of a repository that is loaded when none is named."""

PICTURE_NAME = "example.png"
"""The picture of a model card, beside the weights."""

COLUMNS = ("image", "landmarks", "box")
"""The columns of annotated faces that are learned from and scored by."""

TEMPLATES = ("csv", "cvat", "labelme", "labelstudio")
"""What `fabrec select` writes for annotation tools. `csv`: a table with one face a line, its points empty, which
`fabrec fit` reads. `cvat`: the labels of a task, to be pasted as raw JSON, one skeleton a face. `labelme`: its list
of labels. `labelstudio`: the labeling interface of a project, one keypoint label a point."""

TO_SCHEMES = ("300w", "mtfl")
"""The schemes that `fabrec convert` can reduce landmarks to."""
