"""Typed errors of the library.

Every error that a user can cause carries one line that says what is wrong and what to do. The command line prints
that line and leaves with exit code 2. Each class is a `ValueError` too, so that code which knows nothing of this
package can still catch it.
"""

__all__ = ["BoxError", "CheckpointError", "DataError", "FabRecError", "HubError", "ImageError", "SchemeError"]


class FabRecError(Exception):
    """Base class of every error that the library raises for a user's mistake."""


class ImageError(FabRecError, ValueError):
    """A file that is missing, truncated, or not an image."""


class BoxError(FabRecError, ValueError):
    """A face box that is malformed or encloses no area."""


class CheckpointError(FabRecError, ValueError):
    """A checkpoint that is missing, damaged, or of another kind than the task needs."""


class SchemeError(FabRecError, ValueError):
    """Landmarks, a landmark scheme and a model that do not belong together."""


class DataError(FabRecError, ValueError):
    """A data set that is missing, empty, or not in the expected layout."""


class HubError(FabRecError, ValueError):
    """A repository that cannot be written to or read, or a name, a token or a permission that is missing or wrong."""
