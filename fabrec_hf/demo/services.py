"""What the pages share: models, sessions, uploads, the queue of trainings, and how errors reach a visitor."""

import functools
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import FabRecError
from .detection import FoundFaces
from .fit_queue import FitQueue
from .models import ModelShelf
from .sessions import SessionStore
from .uploads import Limits, Photograph, Uploads


__all__ = ["AT_ONCE", "BUTTONS", "COMPUTE", "GALLERY", "HIDDEN", "LONG", "Services", "guarded"]

logger = logging.getLogger(__name__)

# Events that compute share one queue, and events of other programs than the page itself are refused.
COMPUTE: dict[str, Any] = {"concurrency_id": "compute", "concurrency_limit": 2}
# Whole folders of photographs wait for one another, so that nobody with a single one waits for them.
LONG: dict[str, Any] = {"concurrency_id": "long", "concurrency_limit": 1}
# Without Gradio's own share button, which publishes a visitor's pictures.
BUTTONS: list[Any] = ["download", "fullscreen"]
GALLERY: dict[str, Any] = {"object_fit": "contain", "format": "webp", "interactive": False, "buttons": BUTTONS}
HIDDEN: dict[str, Any] = {"api_visibility": "private"}
# What is hidden shows no progress either: an event that fills it makes it visible first, out of the queue.
AT_ONCE: dict[str, Any] = {**HIDDEN, "queue": False, "show_progress": "hidden"}


@dataclass(frozen=True)
class Services:
    """What the pages share.

    Attributes:
        limits: What one visitor may ask for.
        uploads: Where the web server puts files.
        sessions: What is kept of visitors.
        shelf: The models.
        fits: The queue of trainings.
        offered: Names of the landmark checkpoints to choose from, the default one first.
        find_faces: Finds the faces of a photograph, perhaps on a GPU that is lent for it.
        examples: Photographs to try.
        prepared: Key of the session that the page opens with, instead of each visitor's own.
    """

    limits: Limits
    uploads: Uploads
    sessions: SessionStore
    shelf: ModelShelf
    fits: FitQueue
    offered: tuple[str, ...]
    find_faces: Callable[[Photograph], FoundFaces]
    examples: tuple[Path, ...] = field(default=())
    prepared: str | None = None


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a visitor see what they did wrong in one line, and of the server's own failures only a number."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except FabRecError as error:
            raise gr.Error(" ".join(str(error).split()), duration=None, print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            number = secrets.token_hex(4)
            logger.exception("Failure %s of %s.", number, function.__qualname__)
            raise gr.Error(f"Something failed on the server (number {number}).", print_exception=False) from None

    return run
