"""Where a face without a box gets one from, by name."""

__all__ = ["BOX_RULES"]

BOX_RULES = ("points", "detector", "image", "none")
"""The tight box of its points, the face detector, the whole picture, or nowhere."""
