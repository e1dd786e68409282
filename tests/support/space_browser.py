"""What the tests need that open the pages of the Space in a browser; the fixtures are in `demo/conftest.py`.

Whoever imports it is skipped without SPACE_BROWSER=1, Playwright and Chromium (`apt-get install chromium`). With
SPACE_SCREENSHOTS=DIR a picture of each page is kept.
"""

import os
import shutil
from pathlib import Path

import pytest


pytest.importorskip("gradio")
pytest.importorskip("kmedoids")
playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SPACE_SCREENSHOTS")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SLOW = 180_000  # milliseconds that a busy machine may take

if CHROMIUM is None or not os.environ.get("SPACE_BROWSER"):
    pytest.skip("there is no Chromium, or SPACE_BROWSER=1 is not set", allow_module_level=True)
if not (ROOT / "space").is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)
