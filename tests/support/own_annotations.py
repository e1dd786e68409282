"""Faces in pictures as tools and phones write them, and a detector that finds them."""

import json

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import face_boxes, load_faces, survey  # noqa: E402
from fabrec_hf.data.conversion import convert_faces  # noqa: E402
from fabrec_hf.data.face_set import find_face_set  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.model.face_detection import Detection  # noqa: E402


WIDTH, HEIGHT = 200, 260
# Faces somewhere in the picture, as boxes, and their eyes and nose as fractions of these.
FACES = [
    (40, 60, 80, 100),
    (60, 80, 90, 110),
    (30, 50, 70, 80),
    (90, 100, 60, 80),
    (50, 40, 100, 120),
    (70, 90, 80, 90),
]
SHAPE = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.6]])
FACE = {"id": 1, "name": "face", "keypoints": ["left_eye", "right_eye", "nose"]}


def points_of(box):
    return np.array(box[:2]) + SHAPE * box[2:]


def find_faces_by_red(monkeypatch):
    """Put a detector in place, upright as the true one is: it finds the face whose number is the red of the corner.

    Returns:
        The pictures that it has looked at.
    """
    looked = []

    def detect(image):
        looked.append(image)
        turned = image.getexif().get(0x0112, 1) == 6
        red = image.convert("RGB").getpixel((0, image.height - 1) if turned else (0, 0))[0]
        return [Detection(tuple(map(float, FACES[round(red / 40)])), 0.9)]

    for module in (face_boxes, survey):
        monkeypatch.setattr(module, "default_face_detector", lambda: detect)
    return looked


def pictures(folder, form="png", orientation=None, scale=1):
    """Write a picture a face; with an orientation of 6 it lies in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(FACES)):
        image = Image.new("RGB", (round(WIDTH * scale), round(HEIGHT * scale)), (40 * number, 9, 9))
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(folder / f"{number}.{form}", exif=exif)


def coco(file, boxes=None, points=None, size=(WIDTH, HEIGHT), form="png", category=FACE, more=()):
    """Write COCO keypoints of all faces."""
    file.parent.mkdir(parents=True, exist_ok=True)
    points = [points_of(box) for box in FACES] if points is None else points
    images = [
        {"id": number, "file_name": f"{number}.{form}", "width": size[0], "height": size[1]}
        for number in range(len(FACES))
    ]
    faces = []
    for number, found in enumerate(points):
        keypoints = [value for x, y in found for value in (float(x), float(y), 2)]
        face = {"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints}
        faces.append(face | ({"bbox": list(map(float, boxes[number]))} if boxes is not None else {}))
    content = {"images": images, "annotations": [*faces, *more], "categories": [category]}
    file.write_text(json.dumps(content))
    return file


def convert(file, output, kind="coco", boxes=None, **options):
    """Convert, and return what is said of the set, its boxes and its points."""
    face_set = convert_faces(open_source(kind, file, **options), output, boxes=boxes)
    assert find_face_set(output) == face_set
    faces = load_faces(output, columns=("box", "landmarks"))
    return face_set, np.array(faces["box"][:]), np.array(faces["landmarks"][:])
