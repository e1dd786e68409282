"""What tests need to know before they open the demonstration in a browser."""

import os
import shutil
from pathlib import Path

import pytest


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SLOW = 180_000  # milliseconds that a busy machine may take


def skip_without_browser() -> None:
    """Skip the module that calls this where it cannot run, or where nobody asked for it: it takes minutes."""
    pytest.importorskip("gradio")
    pytest.importorskip("kmedoids")
    pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None or not os.environ.get("SPACE_BROWSER"):
        pytest.skip("there is no Chromium, or SPACE_BROWSER=1 is not set", allow_module_level=True)
    if not (Path(__file__).parents[2] / "space").is_dir():
        pytest.skip("only in a checkout", allow_module_level=True)
