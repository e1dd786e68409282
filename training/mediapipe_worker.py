"""Find MediaPipe's face mesh in pictures that come on standard input: the far end of `mediapipe_teacher`.

This file runs in an environment of its own, since MediaPipe below 0.10.30 asks for NumPy 1: it imports none of ours.
A picture is its height and width (two 32-bit integers) and its RGB bytes. The answer is 478 x 2 32-bit floats: pixels
of the picture, edges at 0, NaN where no face was found.
"""

import os
import struct
import sys

import mediapipe
import numpy as np


VERTICES = 478
# Crops of a face are easy to detect, but for their tight frame.
MIN_CONFIDENCE = 0.3


def main() -> None:
    """Answer every picture until the input ends."""
    source = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not stand between answers
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=True, max_num_faces=1, min_detection_confidence=MIN_CONFIDENCE
    )
    while header := source.read(8):
        height, width = struct.unpack("<ii", header)
        pixels = np.frombuffer(source.read(3 * height * width), np.uint8).reshape(height, width, 3)
        faces = mesh.process(pixels).multi_face_landmarks
        points = np.full((VERTICES, 2), np.nan, np.float32)
        if faces:
            points[:] = [(point.x * width, point.y * height) for point in faces[0].landmark]
        answers.write(points.tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
