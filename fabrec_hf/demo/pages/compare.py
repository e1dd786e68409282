"""The page that shows the same photographs with several checkpoints."""

from pathlib import Path
from typing import Any

import gradio as gr

from ...errors import DataError
from ..comparison import compare, read_checkpoint, read_labels
from ..detection import SEARCH_SIDE
from ..services import AT_ONCE, COMPUTE, GALLERY, HIDDEN, Services, guarded
from ..sessions import Session
from ..uploads import checked_list


__all__ = ["build"]

PHOTOGRAPHS = 12


def build(services: Services, key: gr.State) -> gr.CheckboxGroup:
    """Lay the page out and connect it.

    Returns:
        The choice of checkpoints, which changes as detectors are taught.
    """
    gr.Markdown(
        "The same photographs with several checkpoints, side by side. With a `.pts` file of the same name beside a "
        "photograph, the error of every checkpoint of that many points is measured on its largest face. A white ring "
        "marks a point that lies elsewhere than with the first checkpoint, by 5 % of the face or more."
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            pictures = gr.File(label="Photographs, and .pts files", file_count="multiple", height=180)
            from_one = gr.Checkbox(label="These .pts files count pixels from 1, as the downloads of 300-W do")
        with gr.Column(min_width=300):
            names = gr.CheckboxGroup(list(services.offered), value=list(services.offered), label="Checkpoints")
            mine = gr.File(
                label="Your own checkpoint: its files, or a zip",
                file_count="multiple",
                height=180,
            )
    if services.examples:
        gr.Examples([[[str(path) for path in services.examples]]], [pictures], label="Or try these photographs")
    button = gr.Button("Compare", variant="primary", interactive=False)
    table = gr.Dataframe(label="Error in percent", visible=False, interactive=False)
    gallery = gr.Gallery(
        label="Side by side",
        elem_id="compare-pictures",
        visible=False,
        columns=2,
        **GALLERY,
    )

    @guarded
    def add(secret: str, paths: list[str] | None, chosen: list[str]) -> Any:
        session = services.sessions.open(secret)
        if not paths:
            return gr.skip()
        name, files = read_checkpoint(checked_list(paths, 8, "the files of a checkpoint"), services.uploads)
        with session.lock:
            folder = session.add_checkpoint(name, files)
            try:
                services.shelf.finder(folder)
            except Exception:
                session.drop_checkpoint(folder)
                raise
        label = next(label for label, place in session.checkpoints().items() if place == folder)
        return choices(services, session, [*chosen, label])

    @guarded
    def run(secret: str, paths: list[str] | None, chosen: list[str], one: bool) -> dict[Any, Any]:
        known = known_checkpoints(services, services.sessions.open(secret))
        wanted = [name for name in chosen if name in known]
        if not wanted:
            raise DataError("Choose at least one checkpoint.")
        files = checked_list(paths, 2 * PHOTOGRAPHS)
        marks = [services.uploads.check(path) for path in files if path.lower().endswith(".pts")]
        photographs = [
            services.uploads.read_picture(path, SEARCH_SIDE) for path in files if not path.lower().endswith(".pts")
        ]
        if not photographs:
            raise DataError("Choose photographs first: there are only .pts files.")
        finders = {name: services.shelf.finder(known[name]) for name in wanted}
        found = compare(photographs[:PHOTOGRAPHS], finders, read_labels(marks, one))
        rows = found.table()
        shown = gr.Dataframe(value=rows, headers=["photograph", *found.names], visible=bool(rows))
        return {table: shown, gallery: gr.Gallery(value=found.pictures, columns=max(2, len(wanted)))}

    for given in (pictures, names):
        given.change(
            lambda paths, chosen: gr.Button(interactive=bool(paths and chosen)), [pictures, names], button, **AT_ONCE
        )
    mine.upload(add, [key, mine, names], names, **COMPUTE, **HIDDEN)
    button.click(lambda: gr.Gallery(visible=True), None, gallery, **AT_ONCE).then(
        run, [key, pictures, names, from_one], [table, gallery], **COMPUTE, **HIDDEN
    )
    return names


def known_checkpoints(services: Services, session: Session) -> dict[str, str | Path]:
    """Return what a visitor may choose, by the name that is shown; nothing else is ever loaded."""
    return {**{name: name for name in services.offered}, **session.checkpoints()}


def choices(services: Services, session: Session, chosen: list[str]) -> Any:
    """Show what there is to choose from, and keep what is chosen."""
    known = list(known_checkpoints(services, session))
    return gr.CheckboxGroup(choices=known, value=[name for name in known if name in chosen])
