"""Where the box of a face comes from, by name."""

__all__ = ["BOX_RULES"]

BOX_RULES = ("auto", "given", "points", "detector", "image", "none")
"""`auto`: the given one, if that means the face, as a look at the pictures shows. `given`: the given one, whatever it
means. `points`, `detector`: the tight box of the points or the face detector, for every face. `image`, `none`: the
given one, and for a face without one the whole picture or nothing."""
