"""The GPU of a Space with ZeroGPU, which is lent to one function at a time."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import FabRecError


if TYPE_CHECKING:
    from .detection import FoundFaces
    from .models import ModelShelf
    from .uploads import Limits, Photograph

__all__ = ["borrows_gpu", "face_search"]

# Loading the models takes most of it; a visitor's quota is charged by this.
SECONDS = 20


def borrows_gpu() -> bool:
    """Whether this runs in a Space with ZeroGPU: then `spaces` takes care of the GPU, which it has to before torch.

    There, this process never sees the GPU, and its models belong on the CPU.
    """
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true"):
        return False
    import spaces  # noqa: F401

    return True


def face_search(shelf: "ModelShelf", limits: "Limits") -> "Callable[[Photograph], FoundFaces]":
    """Return what finds the faces of a photograph: in a Space with ZeroGPU on the GPU that it lends, else here.

    Args:
        shelf: The models, on the CPU where the GPU is lent.
        limits: How many faces to look at.
    """
    from .detection import find_faces

    if not borrows_gpu():
        return lambda photograph: find_faces(photograph, shelf.finder(), shelf, limits)
    import spaces

    search = spaces.GPU(_search_in_other_process(shelf, limits), duration=SECONDS)

    def ask(photograph: "Photograph") -> "FoundFaces":
        found = search(photograph)
        if isinstance(found, FabRecError):
            raise found
        return found

    return ask


def _search_in_other_process(shelf: "ModelShelf", limits: "Limits") -> "Callable[[Photograph], Any]":
    """Return what a forked process does: it finds the faces, or returns what the visitor can put right.

    Of an error that leaves the process, only the name of its class comes back.
    """
    lent: list[ModelShelf] = []

    def search(photograph: "Photograph") -> Any:
        import cv2
        import torch

        from .detection import find_faces
        from .models import ModelShelf

        # The threads of both libraries were not forked along, and would be waited for in vain.
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        if not lent:
            lent.append(ModelShelf(shelf.landmarks_name, shelf.autoencoder_name))
        try:
            return find_faces(photograph, lent[0].finder(), lent[0], limits)
        except FabRecError as error:
            return error

    return search
