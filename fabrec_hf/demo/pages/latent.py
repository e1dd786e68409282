"""The page that walks through the latent space."""

import threading
from typing import Any

import gradio as gr

from ..detection import SEARCH_SIDE
from ..latent import LARGEST_SEED, SPREAD, LatentExplorer, animate, direction_labels
from ..picture_input import picture_input
from ..services import AT_ONCE, BUTTONS, COMPUTE, GALLERY, HIDDEN, Services, guarded


__all__ = ["build"]

# How far the sliders go along a single direction, in standard deviations of photographs.
REACH = 4.0


def build(services: Services, tab: gr.Tab) -> None:
    """Lay the page out and connect it.

    Args:
        services: What the pages share.
        tab: Where the page lies; a face is shown as soon as it is opened.
    """
    gr.Markdown("### Random faces\nFaces that nobody has, and the landmark heatmaps in each (the paper's figure 3).")
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=120)
        count = gr.Slider(1, 16, 6, step=1, label="Faces", min_width=160)
        spread = gr.Slider(0.1, 1.2, SPREAD, step=0.1, label="Distance from the mean face", min_width=160)
    button = gr.Button("Draw faces", variant="primary")
    gallery = gr.Gallery(
        label="Each face, then its heatmaps",
        visible=False,
        columns=4,
        **GALLERY,
    )
    _build_directions(services, tab)
    gr.Markdown(
        "### From one face to another\nThe landmarks move along (figure 4). Photographs are optional: a face "
        "that is not chosen is drawn from the seed."
    )
    with gr.Row():
        first = picture_input(label="From", sources=["upload", "webcam"], height=240, min_width=200)
        last = picture_input(label="To", sources=["upload", "webcam"], height=240, min_width=200)
    if services.examples:
        examples = [str(path) for path in services.examples]
        pairs = [[one, other] for one, other in zip(examples, examples[1:], strict=False)]
        gr.Examples(pairs, [first, last], label="Or try these two")
    with gr.Row():
        seed_between = gr.Number(
            1, label="Seed of faces not chosen", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=120
        )
        steps = gr.Slider(3, 24, 9, step=1, label="Steps", min_width=160)
    go = gr.Button("Go from one to the other", variant="primary")
    with gr.Row(visible=False) as way:
        walk = gr.Image(label="Animation", interactive=False, buttons=BUTTONS, min_width=200, format="webp")
        strip = gr.Gallery(
            label="Step by step",
            columns=5,
            scale=3,
            min_width=300,
            **GALLERY,
        )

    @guarded
    def draw(number: float, faces: float, distance: float) -> list[Any]:
        explorer = LatentExplorer(services.shelf.finder(), services.shelf)
        pairs = explorer.random_faces(int(number or 0), min(int(faces), 16), min(float(distance), 2.0))
        return [
            (picture, caption)
            for index, (face, heat) in enumerate(pairs, start=1)
            for picture, caption in ((face, f"face {index}"), (heat, f"heatmaps {index}"))
        ]

    @guarded
    def interpolate(one: str | None, other: str | None, number: float, frames: float) -> dict[Any, Any]:
        explorer = LatentExplorer(services.shelf.finder(), services.shelf)
        drawn = explorer.latents(int(number or 0), 2, SPREAD).split(1)
        ends = [
            explorer.encode(services.uploads.read_picture(path, SEARCH_SIDE)) if path else latent
            for path, latent in zip((one, other), drawn, strict=True)
        ]
        walked = explorer.interpolate(ends[0], ends[1], max(2, min(int(frames), 24)))
        path = services.uploads.new_file("interpolation.webp")
        path.write_bytes(animate(walked.frames))
        return {walk: str(path), strip: list(walked.frames)}

    button.click(lambda: gr.Gallery(visible=True), None, gallery, **AT_ONCE).then(
        draw, [seed, count, spread], gallery, **COMPUTE, **HIDDEN
    )
    go.click(lambda: gr.Row(visible=True), None, way, **AT_ONCE).then(
        interpolate, [first, last, seed_between, steps], [walk, strip], **COMPUTE, **HIDDEN
    )


def _build_directions(services: Services, tab: gr.Tab) -> None:
    """Lay out the sliders along the directions in which faces change the most."""
    gr.Markdown(
        "### Pose, mouth and light\nThe directions of the latent space along which all landmarks move the most "
        "(*pose*), then the mouth's alone, then the picture (*light*). The landmarks follow. 0 is the face itself, "
        "1 as far as photographs usually differ. Without a photograph the face is drawn from the seed."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            photograph = picture_input(
                value=str(services.examples[0]) if services.examples else None,
                label="Start from",
                sources=["upload", "webcam"],
                height=200,
                elem_id="latent-start",
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=120)
        face = gr.Image(
            label="Face and landmarks",
            interactive=False,
            buttons=BUTTONS,
            format="webp",
            scale=3,
            min_width=300,
            elem_id="latent-face",
        )
        with gr.Column(scale=2, min_width=260):
            labels = direction_labels(services.shelf.finder().scheme)
            sliders = [gr.Slider(-REACH, REACH, 0, step=0.1, label=label) for label in labels]
            back = gr.Button("Back to the face itself")
    found: list[Any] = []
    lock = threading.Lock()

    @guarded
    def move(path: str | None, number: float, *amounts: float) -> Any:
        explorer = LatentExplorer(services.shelf.finder(), services.shelf)
        if path:
            base = explorer.encode(services.uploads.read_picture(path, SEARCH_SIDE))
        else:
            base = explorer.latents(int(number or 0), 1, SPREAD)
        if not any(amounts):  # which needs no directions: they take a while to find
            return explorer.face(base)
        with lock:  # found once, by whoever comes first
            if not found:
                found.append(explorer.directions())
        return explorer.face_along(base, found[0], [min(max(float(amount), -REACH), REACH) for amount in amounts])

    given = [photograph, seed, *sliders]
    for changed in given:
        changed.change(move, given, face, **COMPUTE, **HIDDEN, trigger_mode="always_last")
    tab.select(move, given, face, **COMPUTE, **HIDDEN)
    # Sliders that stand at 0 already do not change.
    back.click(lambda: [0.0] * len(sliders), None, sliders, **AT_ONCE).then(move, given, face, **COMPUTE, **HIDDEN)
