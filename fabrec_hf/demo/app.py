"""The demonstration as a Gradio application."""

from typing import Any

import gradio as gr

from .pages import compare, detect, latent, teach, training
from .services import HIDDEN, Services, fill, guarded


__all__ = ["HEAD", "build_app", "build_theme"]

TITLE = "3FabRec: face landmarks from a few annotated faces"
INTRODUCTION = f"""# {TITLE}

An autoencoder learns faces from photographs without labels; its frozen generator then draws landmark heatmaps.
Everything is computed on this server, and nothing is sent anywhere else unless you push a detector. The weights are
for non-commercial research.
"""
# Files that the web server wrote are removed after this many seconds, looked for as often as the first number says.
CACHE_SECONDS = (60, 1800)
# In the head of the page, since Gradio rewrites the selectors of what it is given as CSS.
HEAD = """<style>
footer { display: none !important; }
.gradio-container { max-width: min(1200px, 100vw) !important; min-width: 0 !important; margin: auto !important; }
.gradio-container :focus-visible { outline: 3px solid #1d4ed8 !important; outline-offset: 2px; }
.dark .gradio-container :focus-visible { outline-color: #93c5fd !important; }
body:not(.dark) .tab-container button.selected { color: #1d4ed8 !important; }
/* Of an error the message says what to do; the bare word over every field that was not filled says nothing. */
[data-testid=status-tracker] .error { display: none !important; }
#teach-face img { cursor: crosshair; }
/* All of a gallery, below its label instead of under it. */
.grid-wrap { min-height: 0 !important; max-height: none !important; padding-top: 36px !important; }
@media (max-width: 640px) {
  .gradio-container .main { padding: 8px !important; }
  .gradio-container .tab-container button { padding: 8px 10px !important; }
  .gradio-container .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  #compare-pictures .grid-container { grid-template-columns: minmax(0, 1fr) !important; }
}
</style>
"""


def build_theme() -> gr.Theme:
    """A plain theme whose fonts come from the visitor's system: none is fetched from another host."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8",
        body_text_color_subdued="#4b5563",
        block_info_text_color="#4b5563",
        block_label_text_color="#374151",
        block_title_text_color="#374151",
        input_placeholder_color="#6b7280",
        checkbox_border_color_dark="#9ca3af",  # Gradio's own cannot be told from the ground
    )


def build_app(services: Services) -> gr.Blocks:
    """Lay out all pages.

    Args:
        services: What the pages share.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CACHE_SECONDS) as app:
        # The key stays in the browser, so that a tab that was closed finds its annotations again.
        browser_key = gr.BrowserState("", storage_key="fabrec-session", secret="fabrec-session")
        key = gr.State("")
        gr.Markdown(INTRODUCTION)
        with gr.Tabs(selected="teach" if services.prepared else None):
            with gr.Tab("Detect"):
                detect.build(services)
            with gr.Tab("Latent space") as latent_tab:
                latent.build(services, latent_tab)
            with gr.Tab("Teach", id="teach"):
                parts = teach.build(services, key)
            with gr.Tab("Compare"):
                checkpoints = compare.build(services, key)

        @guarded
        def enter(stored: Any) -> dict[Any, Any]:
            session = services.sessions.open(services.prepared or stored)
            with session.lock:
                shown = teach.show_session(services, session) | training.show_job(services, session)
            # The browser keeps the key of the visitor's own session.
            kept = {} if services.prepared else {browser_key: session.key}
            return {key: session.key, **kept, **fill(parts.outputs, shown)}

        @guarded
        def refresh(secret: str, chosen: list[str]) -> Any:
            session = services.sessions.open(secret)
            known = [*chosen, *session.checkpoints()]
            return compare.choices(services, session, known)

        app.load(enter, browser_key, [browser_key, key, *parts.outputs.values()], **HIDDEN, show_progress="hidden")
        parts.checkpoints.change(refresh, [key, checkpoints], checkpoints, **HIDDEN, show_progress="hidden")
    return app
