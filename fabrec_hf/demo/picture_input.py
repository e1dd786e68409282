"""Where a visitor gives a picture."""

from typing import Any

import gradio as gr


__all__ = ["picture_input"]


def picture_input(**options: Any) -> gr.Image:
    """Return a field for one picture, whose events get the path of the file as it was sent.

    Gradio's own field opens the file first, and answers with a bare "Error" where Pillow cannot. Here that is left to
    `Uploads.read_picture`, which knows more formats and says what to do.

    Args:
        **options: As `gr.Image` takes them, beside `type` and `image_mode`.
    """
    field = gr.Image(type="filepath", image_mode=None, **options)
    gradios_own = field.preprocess

    def take(payload: Any) -> str | None:
        # What a camera or the clipboard writes into the message itself is no file yet.
        if payload is None or payload.path is None or (payload.url or "").startswith("data:"):
            return gradios_own(payload)
        return str(payload.path)

    field.preprocess = take
    return field
