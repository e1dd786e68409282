"""The page that finds faces in a photograph or a camera's picture."""

import time
from typing import Any

import gradio as gr
import numpy as np

from ...errors import ImageError
from ...face_records import count_faces
from ..detection import SEARCH_SIDE, FoundFaces, WebcamStream, find_faces
from ..services import BUTTONS, COMPUTE, HIDDEN, Services, guarded


__all__ = ["build"]

# Seconds after which a visitor has to start the camera again, so that others have their turn.
STREAM_SECONDS = 120
STATE_SECONDS = 1800
CAMERA_SIDE = 640

LEGEND = (
    "Points run from crimson (unsure) over amber to aqua (sure). The heatmaps are what the landmarks are read off. "
    "**Explained away** is red where the photograph shows something that the reconstruction has no face for: hands, "
    "hair, glasses, paint."
)


def build(services: Services) -> None:
    """Lay the page out and connect it."""
    with gr.Tabs():
        with gr.Tab("Photograph"):
            _build_photograph(services)
        with gr.Tab("Live camera"):
            _build_camera(services)


def _build_photograph(services: Services) -> None:
    found = gr.State(None, time_to_live=STATE_SECONDS)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            image = gr.Image(
                label="Photograph",
                type="filepath",
                image_mode=None,
                sources=["upload", "webcam", "clipboard"],
                height=360,
            )
            threshold = gr.Slider(0, 1, 0, step=0.05, label="Leave out landmarks that score lower")
            button = gr.Button("Find faces", variant="primary")
            if services.examples:
                gr.Examples([str(path) for path in services.examples], image, label="Examples")
        with gr.Column(min_width=300):
            overlay = gr.Image(
                label="Faces and landmarks", interactive=False, buttons=BUTTONS, format="webp", height=420
            )
            summary = gr.Markdown("", elem_id="detect-summary")
            face = gr.Radio([], label="Face to look into", visible=False)
    with gr.Row():
        heat = gr.Image(label="Landmark heatmaps", interactive=False, buttons=BUTTONS, format="webp", min_width=260)
        slider = gr.ImageSlider(
            label="Photograph | reconstruction", interactive=False, buttons=BUTTONS, format="webp", min_width=260
        )
        explained = gr.Image(label="Explained away", interactive=False, buttons=BUTTONS, format="webp", min_width=260)
    gr.Markdown(LEGEND)
    files = gr.File(label="Download: JSON, CSV, overlay", file_count="multiple", interactive=False)
    views = [heat, slider, explained]

    @guarded
    def detect(path: str | None, lowest: float) -> tuple[Any, ...]:
        if not path:
            raise ImageError("Choose a photograph first.")
        photograph = services.uploads.read_picture(path, SEARCH_SIDE)
        result = find_faces(photograph, services.shelf.finder(), services.shelf, services.limits)
        choices = [(f"Face {number + 1}", number) for number in range(len(result.faces))]
        chosen = gr.Radio(choices=choices, value=0 if choices else None, visible=len(choices) > 1)
        return (
            result,
            result.overlay(lowest),
            _summary(result),
            chosen,
            *_views(result, 0),
            _files(services, result, lowest),
        )

    @guarded
    def draw(result: FoundFaces | None, lowest: float) -> tuple[Any, ...]:
        if result is None:
            return gr.skip(), gr.skip()
        return result.overlay(lowest), _files(services, result, lowest)

    outputs = [found, overlay, summary, face, *views, files]
    button.click(detect, [image, threshold], outputs, **COMPUTE, api_name="detect")
    image.input(detect, [image, threshold], outputs, **COMPUTE, **HIDDEN)
    threshold.release(draw, [found, threshold], [overlay, files], **COMPUTE, **HIDDEN)
    face.input(
        guarded(lambda result, number: _views(result, number or 0)),
        [found, face],
        views,
        **HIDDEN,
        show_progress="hidden",
    )


def _views(result: FoundFaces | None, number: int) -> tuple[Any, ...]:
    if result is None or not 0 <= number < len(result.faces):
        return None, None, None
    return result.heatmap_picture(number), result.slider_pictures(number), result.explained_picture(number)


def _summary(result: FoundFaces) -> str:
    if not result.faces:
        return "No face was found: try a photograph in which faces are larger."
    score = np.concatenate([face.scores for face in result.faces]).mean()
    return f"**{count_faces(len(result.faces))}**, mean score {score:.2f}, in {result.seconds:.2f} s."


def _files(services: Services, result: FoundFaces, lowest: float) -> list[str] | None:
    if not result.faces:
        return None
    paths = []
    for name, content in result.files(lowest).items():
        path = services.uploads.new_file(name)
        path.write_bytes(content)
        paths.append(str(path))
    return paths


def _build_camera(services: Services) -> None:
    stream = gr.State(None, time_to_live=STATE_SECONDS)
    with gr.Row(equal_height=False):
        camera = gr.Image(
            label="Camera", type="filepath", image_mode=None, sources=["webcam"], streaming=True, min_width=300
        )
        drawn = gr.Image(label="Landmarks", interactive=False, buttons=BUTTONS, format="jpeg", min_width=300)
    lowest = gr.Slider(0, 1, 0, step=0.05, label="Leave out landmarks that score lower")
    rate = gr.Markdown("", elem_id="camera-rate")

    @guarded
    def follow(path: str | None, least: float, faces: WebcamStream | None) -> tuple[Any, ...]:
        if not path:
            return gr.skip(), gr.skip(), gr.skip()
        photograph = services.uploads.read_picture(path, CAMERA_SIDE)
        services.uploads.check(path).unlink(missing_ok=True)  # ten a second would soon fill the disk
        faces = faces or WebcamStream(services.shelf.finder(), services.limits)
        picture, frames = faces(np.asarray(photograph.image), time.monotonic(), least)
        return picture, faces, f"{frames:.0f} frames a second"

    camera.stream(
        follow,
        [camera, lowest, stream],
        [drawn, stream, rate],
        stream_every=0.06,
        time_limit=STREAM_SECONDS,
        concurrency_limit=4,
        show_progress="hidden",
        **HIDDEN,
    )
