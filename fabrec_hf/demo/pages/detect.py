"""The page that finds faces in a photograph or a camera's picture."""

import time
from typing import Any

import gradio as gr
import numpy as np

from ...errors import ImageError
from ...inference.face_records import count_faces
from ...inference.score_words import score_note
from ..detection import SEARCH_SIDE, FoundFaces, WebcamStream
from ..picture_input import picture_input
from ..services import AT_ONCE, BUTTONS, COMPUTE, HIDDEN, Services, guarded


__all__ = ["build"]

# Seconds after which a visitor has to start the camera again, so that others have their turn.
STREAM_SECONDS = 120
STATE_SECONDS = 1800
CAMERA_SIDE = 640
VIEW: dict[str, Any] = {"interactive": False, "buttons": BUTTONS, "format": "webp", "min_width": 230}

LEGEND = (
    "**Landmarks** run from crimson (low score: unsure) over amber to aqua (high score: sure). They are read off the "
    "**heatmaps**. Drag the handle of the third picture to see the **reconstruction**, which is all that the model "
    "keeps of the face. **Not reconstructed** is red where the photograph shows what the reconstruction does not: "
    "hands, hair, glasses, paint, and fine detail. The model explains these away; red is no error of the landmarks."
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
            image = picture_input(label="Photograph", sources=["upload", "webcam", "clipboard"], height=360)
            if services.examples:
                gr.Examples([str(path) for path in services.examples], image, label="Or try one of these")
            button = gr.Button("Find faces", variant="primary", interactive=False)
        with gr.Column(min_width=300):
            overlay = gr.Image(
                label="Faces and landmarks", interactive=False, buttons=BUTTONS, format="webp", height=420
            )
            summary = gr.Markdown("", elem_id="detect-summary")
            face = gr.Radio([], label="Face to look into", visible=False)
            threshold = gr.Slider(
                0, 1, 0, step=0.05, label="Threshold: leave out landmarks that score lower", visible=False
            )
    # What is empty before the first photograph is not shown.
    with gr.Column(visible=False) as results:
        with gr.Row():
            views = [
                gr.Image(label="Landmarks by their score", **VIEW),
                gr.Image(label="Landmark heatmaps", **VIEW),
                gr.ImageSlider(label="Photograph | reconstruction", **VIEW),
                gr.Image(label="Not reconstructed", **VIEW),
            ]
        gr.Markdown(LEGEND)
        files = gr.File(label="Download: JSON, CSV, overlay", file_count="multiple", interactive=False)
    outputs = [found, overlay, summary, face, threshold, results, *views, files]

    @guarded
    def detect(path: str | None, lowest: float) -> tuple[Any, ...]:
        if not path:
            raise ImageError("Choose a photograph first.")
        photograph = services.uploads.read_picture(path, SEARCH_SIDE)
        result = services.find_faces(photograph)
        choices = [(f"Face {number + 1}", number) for number in range(len(result.faces))]
        return (
            result,
            result.overlay(lowest),
            _summary(result, services),
            gr.Radio(choices=choices, value=0 if choices else None, visible=len(choices) > 1),
            gr.Slider(visible=bool(choices)),
            gr.Column(visible=bool(choices)),
            *_views(result, 0, lowest),
            _files(services, result, lowest),
        )

    @guarded
    def look(path: str | None, lowest: float) -> tuple[Any, ...]:
        if path:
            return detect(path, lowest)
        hidden = (gr.Radio(choices=[], visible=False), gr.Slider(visible=False), gr.Column(visible=False))
        return (None, None, "", *hidden, *_views(None, 0, 0.0), None)

    @guarded
    def draw(result: FoundFaces | None, number: int | None, lowest: float) -> tuple[Any, ...]:
        if result is None:
            return gr.skip(), gr.skip(), gr.skip()
        return result.overlay(lowest), _views(result, number or 0, lowest)[0], _files(services, result, lowest)

    button.click(detect, [image, threshold], outputs, **COMPUTE, api_name="detect")
    # An upload, a picture of the camera, an example, or none any more.
    image.change(look, [image, threshold], outputs, **COMPUTE, **HIDDEN)
    image.change(lambda path: gr.Button(interactive=bool(path)), image, button, **AT_ONCE)
    # Not `release`, which no key and no typed number brings about.
    threshold.change(
        draw, [found, face, threshold], [overlay, views[0], files], **COMPUTE, **HIDDEN, trigger_mode="always_last"
    )
    face.input(
        guarded(lambda result, number, lowest: _views(result, number or 0, lowest)),
        [found, face, threshold],
        views,
        **HIDDEN,
        show_progress="hidden",
    )


def _views(result: FoundFaces | None, number: int, lowest: float) -> tuple[Any, ...]:
    if result is None or not 0 <= number < len(result.faces):
        return None, None, None, None
    return (
        result.landmark_picture(number, lowest),
        result.heatmap_picture(number),
        result.slider_pictures(number),
        result.explained_picture(number),
    )


def _summary(result: FoundFaces, services: Services) -> str:
    if not result.faces:
        return f"No face was found: try a photograph in which faces are larger. {_first_picture(result)}".rstrip()
    score = np.concatenate([face.scores for face in result.faces]).mean()
    line = f"**{count_faces(len(result.faces))}**, mean score {score:.2f}, in {result.seconds:.2f} s."
    if result.left_out:
        line += (
            f" {result.left_out} more, smaller ones were found and not looked at: this page takes "
            f"{len(result.faces)} faces of a photograph, `fabrec detect` takes all."
        )
    line = f"{line} {_first_picture(result)}".rstrip()
    note = score_note(services.shelf.finder().model.config)
    return f"{line}\n\n{note}" if note else line


def _first_picture(result: FoundFaces) -> str:
    """Say of a file that holds several pictures which one was looked at."""
    note = result.photograph.note
    return f"{result.photograph.name}: {note}" if note else ""


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
    gr.Markdown(
        "Give access to the camera and press Record. The pictures are looked at on this server and not kept; after "
        f"{STREAM_SECONDS // 60} minutes it stops by itself."
    )
    with gr.Row(equal_height=False):
        camera = picture_input(label="Camera", sources=["webcam"], streaming=True, min_width=300)
        drawn = gr.Image(label="Landmarks", interactive=False, buttons=BUTTONS, format="jpeg", min_width=300)
    lowest = gr.Slider(0, 1, 0, step=0.05, label="Threshold: leave out landmarks that score lower")
    rate = gr.Markdown("", elem_id="camera-rate")

    @guarded
    def follow(path: str | None, least: float, faces: WebcamStream | None) -> tuple[Any, ...]:
        if not path:
            return gr.skip(), gr.skip(), gr.skip()
        photograph = services.uploads.read_picture(path, CAMERA_SIDE)
        services.uploads.check(path).unlink(missing_ok=True)  # ten a second would soon fill the disk
        faces = faces or WebcamStream(services.shelf.finder(), services.limits)
        picture, frames = faces(np.asarray(photograph.image), time.monotonic(), least)
        return picture, faces, f"{frames:.1f} frames a second"

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
