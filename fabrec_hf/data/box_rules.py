"""Where the box of a face comes from, by name."""

__all__ = ["BOX_RULES", "check_box_rule"]

BOX_RULES = ("auto", "given", "points", "detector", "image", "none")
"""`auto`: the given one, if that means the face, as a look at the pictures shows. `given`: the given one, whatever it
means. `points`, `detector`: the tight box of the points or the face detector, for every face. `image`, `none`: the
given one, and for a face without one the whole picture or nothing."""


def check_box_rule(boxes: str | None) -> None:
    """Refuse a rule for boxes that there is not; None leaves the choice open.

    Raises:
        ValueError: If there is no such rule.
    """
    if boxes is not None and boxes not in BOX_RULES:
        raise ValueError(f"boxes must be one of {', '.join(BOX_RULES)}, not {boxes!r}.")
