"""Start the demonstration."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import FabRecError
from ..hub.space import app_folder
from ..inference.input_files import collect_inputs, is_video
from .temporary import temporary_folder
from .uploads import Limits, Uploads


if TYPE_CHECKING:
    from .prepared import FolderToAnnotate
    from .services import Services

__all__ = ["Settings", "example_pictures", "launch", "make_services", "serve"]

WAITING = 64


@dataclass(frozen=True)
class Settings:
    """How the demonstration runs.

    Attributes:
        models: Landmark checkpoints to choose from when comparing; the first one detects.
        autoencoder: What reconstructs faces, and what detectors are taught from if it is not the default one.
        sessions: Folder that keeps photographs and annotations from one run to the next; None forgets them.
        max_age: Seconds without use after which a session is removed.
        examples: Photographs to try.
        host: Address to listen at; None leaves it to Gradio, which listens on this machine only.
        port: Port to listen at; None takes the first free one from 7860 on.
        limits: What one visitor may ask for.
        device: Where models find faces; the GPU by default where there is one. Detectors are taught on the CPU.
        annotate: Photographs that everybody who opens the page finds on the page Teach.
    """

    models: Sequence[str] = ("3fabrec-300w",)
    autoencoder: str = "3fabrec-autoencoder"
    sessions: Path | None = None
    max_age: float = 86400.0
    examples: Sequence[Path] = ()
    host: str | None = None
    port: int | None = None
    limits: Limits = field(default_factory=Limits)
    device: str | None = None
    annotate: "FolderToAnnotate | None" = None


def example_pictures(folder: Path | None) -> list[Path]:
    """List the photographs to try: the photographs of a folder, or the ones that come with the package.

    Raises:
        ImageError: If the folder holds none.
    """
    if folder is not None:
        return [path for path in collect_inputs([str(folder)]) if not is_video(path)]
    return sorted((app_folder() / "examples").glob("*.jpg"))


@contextmanager
def make_services(settings: Settings) -> "Iterator[Services]":
    """Load what the pages share, with folders that are removed at the end.

    Args:
        settings: How the demonstration runs.

    Raises:
        CheckpointError: If a checkpoint cannot be used.
    """
    # All of this is read when Gradio is imported or its first component is made. Nothing is to be fetched from or
    # reported to any other host.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with temporary_folder() as temporary:
        yield from _filled(settings, temporary)


def _filled(settings: Settings, temporary: Path) -> "Iterator[Services]":
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(temporary / "web")
    (temporary / "web").mkdir(mode=0o700)
    pixels_before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, settings.limits.pixels
    from .fit_queue import FitQueue
    from .latent import LatentExplorer
    from .models import ModelShelf
    from .prepared import prepare_session
    from .services import Services
    from .sessions import SessionStore
    from .zero_gpu import face_search

    try:
        shelf = ModelShelf(settings.models[0], settings.autoencoder, device=settings.device)
        for model in reversed(settings.models):
            shelf.finder(model)
        shelf.finder().detect(Image.new("RGB", (320, 320)))  # loads the detector before the first visitor comes
        LatentExplorer(shelf.finder(), shelf)  # says so at once if the two do not belong together
        uploads = Uploads(temporary / "web", settings.limits)
        sessions = SessionStore(settings.sessions or temporary / "sessions", settings.limits, settings.max_age)
        annotate = settings.annotate
        yield Services(
            limits=settings.limits,
            uploads=uploads,
            sessions=sessions,
            shelf=shelf,
            fits=FitQueue(settings.limits.jobs),
            offered=tuple(settings.models),
            find_faces=face_search(shelf, settings.limits),
            examples=tuple(_copied(settings.examples, temporary / "web" / "examples")),
            prepared=prepare_session(annotate, sessions, uploads, shelf.finder()).key if annotate else None,
        )
    finally:
        Image.MAX_IMAGE_PIXELS = pixels_before
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _copied(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy the examples to where uploads are: nothing else is ever served or opened."""
    folder.mkdir()
    return [Path(shutil.copy(file, folder / file.name)) for file in files]


def launch(services: "Services", settings: Settings) -> Any:
    """Build the application and start its server, which runs on in the background.

    Args:
        services: From `make_services`.
        settings: How the demonstration runs.

    Returns:
        The application.
    """
    from .app import HEAD, build_app, build_theme

    app = build_app(services)
    app.queue(max_size=WAITING, api_open=False, default_concurrency_limit=4)
    app.launch(
        server_name=settings.host,
        server_port=settings.port,
        max_file_size=settings.limits.file_bytes,
        share=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        footer_links=[],
        theme=build_theme(),
        head=HEAD,
        prevent_thread_lock=True,
        quiet=True,
    )
    return app


def serve(settings: Settings, on_start: Callable[[str], None] | None = None) -> None:
    """Run the demonstration until it is interrupted or terminated; temporary files are removed either way.

    Args:
        settings: How it runs.
        on_start: Called with its address once it can be visited.

    Raises:
        FabRecError: If it cannot start; one line.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with make_services(settings) as services:
        try:
            app = launch(services, settings)
        except OSError as error:  # Gradio's own words for a port that is taken
            raise FabRecError(f"The server cannot start: {error}") from error
        if on_start:
            on_start(app.local_url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            app.close(verbose=False)
