"""The landmark scheme of the mesh-taught checkpoints: 128 vertices of MediaPipe's face mesh.

The vertices were chosen by hand where features are (contour, brows, lids, pupils, lips, bridge of the nose) and by
farthest-point sampling of the mean shape between them, always together with their mirror images. Points are named by
their part and their number in the mesh, so that `mouth_61` is vertex 61.
"""

from .landmark_scheme import LandmarkScheme, Normalizer


# fmt: off
# Vertices by part, in the order of the points.
MESH_VERTICES: dict[str, tuple[int, ...]] = {
    "contour": (
        132, 93, 234, 127, 54, 67, 10, 297, 284, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
        149, 150, 136, 172, 58,
    ),
    "brows": (
        52, 63, 105, 66, 107, 336, 296, 334, 293, 282, 295, 283, 300, 276, 285, 55, 46, 70, 53, 65,
    ),
    "eyes": (
        157, 160, 159, 158, 385, 386, 387, 384, 473, 263, 390, 362, 374, 145, 133, 163, 33, 468,
    ),
    "nose": (
        5, 195, 197, 6, 168, 440, 344, 275, 278, 294, 327, 326, 19, 94, 2, 1, 4, 97, 98, 64, 48, 45, 115, 220,
    ),
    "mouth": (
        61, 78, 185, 80, 40, 82, 39, 37, 13, 0, 267, 269, 312, 270, 310, 409, 308, 291, 375, 402, 321, 405, 314, 17,
        14, 84, 181, 91, 178, 146,
    ),
    "cheeks": (
        109, 338, 346, 329, 425, 205, 100, 117,
    ),
}
# Vertices above the brows, which the box of a face leaves out.
FOREHEAD = (54, 67, 10, 297, 284)
# Vertices that change places in the mirrored picture.
_MIRRORED = (
    (132, 361), (93, 323), (234, 454), (127, 356), (54, 284), (67, 297), (288, 58), (397, 172), (365, 136),
    (379, 150), (378, 149), (400, 176), (377, 148), (52, 282), (63, 293), (105, 334), (66, 296), (107, 336),
    (295, 65), (283, 53), (300, 70), (276, 46), (285, 55), (157, 384), (160, 387), (159, 386), (158, 385),
    (473, 468), (263, 33), (390, 163), (362, 133), (374, 145), (440, 220), (344, 115), (275, 45), (278, 48),
    (294, 64), (327, 98), (326, 97), (61, 291), (78, 308), (185, 409), (80, 310), (40, 270), (82, 312), (39, 269),
    (37, 267), (375, 146), (402, 178), (321, 91), (405, 181), (314, 84), (109, 338), (346, 117), (329, 100),
    (425, 205),
)
# Lines to draw: contour, eyes, lips, brows, bridge of the nose.
_LINES: tuple[tuple[int, ...], ...] = (
    (
        132, 93, 234, 127, 54, 67, 10, 297, 284, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
        149, 150, 136, 172, 58, 132,
    ),
    (384, 385, 386, 387, 263, 390, 374, 362, 384),
    (160, 159, 158, 157, 133, 145, 163, 33, 160),
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146, 61),
    (78, 80, 82, 13, 312, 310, 308, 402, 14, 178, 78),
    (276, 283),
    (295, 282, 283),
    (293, 334),
    (295, 285),
    (296, 336),
    (300, 293),
    (334, 296),
    (46, 53),
    (65, 52, 53),
    (63, 105),
    (65, 55),
    (66, 107),
    (70, 63),
    (105, 66),
    (168, 6, 197, 195, 5, 4, 1, 19, 94, 2),
)
# fmt: on


def mesh_scheme() -> LandmarkScheme:
    """Return the scheme; errors are divided by the distance of the pupils, vertices 468 and 473."""
    vertices = [vertex for part in MESH_VERTICES.values() for vertex in part]
    place = {vertex: index for index, vertex in enumerate(vertices)}
    names = [f"{part}_{vertex}" for part, members in MESH_VERTICES.items() for vertex in members]
    lines = [tuple(zip(line, line[1:], strict=False)) for line in _LINES]
    return LandmarkScheme(
        name="mesh",
        num_landmarks=len(vertices),
        point_names=tuple(names),
        flip_pairs=tuple((place[left], place[right]) for left, right in _MIRRORED),
        normalizer=Normalizer("points", ((place[468],), (place[473],))),
        parts={part: tuple(place[vertex] for vertex in members) for part, members in MESH_VERTICES.items()},
        edges=tuple((place[start], place[end]) for line in lines for start, end in line),
    )


__all__ = ["FOREHEAD", "MESH_VERTICES", "mesh_scheme"]
