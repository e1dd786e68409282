"""The page that finds faces in a photograph or a camera's picture."""

from typing import Any

import gradio as gr
import numpy as np

from ...errors import ImageError
from ...inference.face_records import count_faces
from ...inference.score_words import score_note
from ..detection import SEARCH_SIDE, FoundFaces
from ..live_camera import SCRIPT, TURN_SECONDS, VISITORS, LiveCamera, legend
from ..picture_input import picture_input
from ..services import AT_ONCE, BUTTONS, COMPUTE, HIDDEN, Services, fill, guarded


__all__ = ["build"]

STATE_SECONDS = 1800
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
            views = {
                "landmarks": gr.Image(label="Landmarks by their score", **VIEW),
                "heatmaps": gr.Image(label="Landmark heatmaps", **VIEW),
                "reconstruction": gr.ImageSlider(label="Photograph | reconstruction", **VIEW),
                "not_reconstructed": gr.Image(label="Not reconstructed", **VIEW),
            }
        gr.Markdown(LEGEND)
        files = gr.File(label="Download: JSON, CSV, overlay", file_count="multiple", interactive=False)
    parts = {"found": found, "overlay": overlay, "summary": summary, "face": face, "threshold": threshold}
    parts |= {"results": results, **views, "files": files}
    outputs = list(parts.values())

    @guarded
    def detect(path: str | None, lowest: float) -> dict[Any, Any]:
        if not path:
            raise ImageError("Choose a photograph first.")
        photograph = services.uploads.read_picture(path, SEARCH_SIDE)
        result = services.find_faces(photograph)
        choices = [(f"Face {number + 1}", number) for number in range(len(result.faces))]
        values = {
            "found": result,
            "overlay": result.overlay(lowest),
            "summary": _summary(result, services),
            "face": gr.Radio(choices=choices, value=0 if choices else None, visible=len(choices) > 1),
            "threshold": gr.Slider(visible=bool(choices)),
            "results": gr.Column(visible=bool(choices)),
            "files": _files(services, result, lowest),
        }
        return fill(parts, values | _views(result, 0, lowest))

    @guarded
    def look(path: str | None, lowest: float) -> dict[Any, Any]:
        if path:
            return detect(path, lowest)
        values = dict.fromkeys(("found", "overlay", "files")) | {"summary": ""}
        values |= {"face": gr.Radio(choices=[], visible=False), "threshold": gr.Slider(visible=False)}
        values |= {"results": gr.Column(visible=False), **_views(None, 0, 0.0)}
        return fill(parts, values)

    @guarded
    def draw(result: FoundFaces | None, number: int | None, lowest: float) -> Any:
        if result is None:
            return gr.skip()
        values = {"overlay": result.overlay(lowest), "files": _files(services, result, lowest)}
        return fill(parts, values | {"landmarks": _views(result, number or 0, lowest)["landmarks"]})

    @guarded
    def look_into(result: FoundFaces | None, number: int | None, lowest: float) -> dict[Any, Any]:
        return fill(parts, _views(result, number or 0, lowest))

    button.click(detect, [image, threshold], outputs, **COMPUTE, api_name="detect")
    # An upload, a picture of the camera, an example, or none any more.
    image.change(look, [image, threshold], outputs, **COMPUTE, **HIDDEN)
    image.change(lambda path: gr.Button(interactive=bool(path)), image, button, **AT_ONCE)
    # Not `release`, which no key and no typed number brings about.
    threshold.change(
        draw,
        [found, face, threshold],
        [overlay, views["landmarks"], files],
        **COMPUTE,
        **HIDDEN,
        trigger_mode="always_last",
    )
    face.input(look_into, [found, face, threshold], list(views.values()), **HIDDEN, show_progress="hidden")


def _views(result: FoundFaces | None, number: int, lowest: float) -> dict[str, Any]:
    """Return the pictures of a face by the names of the page; None without that face."""
    if result is None or not 0 <= number < len(result.faces):
        return dict.fromkeys(("landmarks", "heatmaps", "reconstruction", "not_reconstructed"))
    return {
        "landmarks": result.landmark_picture(number, lowest),
        "heatmaps": result.heatmap_picture(number),
        "reconstruction": result.slider_pictures(number),
        "not_reconstructed": result.explained_picture(number),
    }


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
    gr.Markdown(
        "The camera's pictures go to this server, which follows the faces and keeps none of the pictures. When all "
        f"{VISITORS} places are taken, yours is kept for {TURN_SECONDS / 60:.0f} minutes."
    )
    live = LiveCamera(services.shelf.finder, services.limits)

    def look(message: Any) -> dict[str, Any]:
        return live.look(message)

    gr.HTML(
        html_template='<div class="live-camera"></div>',
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        server_functions=[look],
        elem_id="camera",
        label="Live camera",
        legend=legend(services.shelf.finder()),
    )
