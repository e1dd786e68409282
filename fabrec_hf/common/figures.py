"""Figures drawn into memory by matplotlib, which is an optional dependency."""

import importlib.util
import io
from typing import Any

from ..errors import FabRecError


__all__ = ["as_png", "has_matplotlib", "make_figure", "require_matplotlib"]


def has_matplotlib() -> bool:
    """Tell whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Refuse to start what could not be drawn in the end.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FabRecError(
            "matplotlib is not installed, which the plot needs: pip install 'fabrec-hf[train]'."
        ) from error


def make_figure(**settings: Any) -> Any:
    """Make a figure that needs no screen and leaves the state of `matplotlib.pyplot` alone.

    Args:
        **settings: Of `matplotlib.figure.Figure`.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**settings)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any) -> bytes:
    """Draw a figure of `make_figure`; returns a PNG."""
    from matplotlib import rc_context

    picture = io.BytesIO()
    with rc_context({"agg.path.chunksize": 20_000}):  # a million steps exceed what Agg draws in one piece
        figure.canvas.print_png(picture)
    return picture.getvalue()
