"""The page in `examples/` that finds landmarks in a browser, with a stand-in for ONNX Runtime Web.

Needs Chromium and Playwright, and runs with SPACE_BROWSER=1. The stand-in finds what its page tells it to, so that
what is tested is the page itself: crops, the way back into the picture, following, and what is said of a lost face.
"""

import http.server
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "onnx_runtime_web.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None or not os.environ.get("SPACE_BROWSER") or not PAGE.is_file():
    pytest.skip("there is no Chromium, or SPACE_BROWSER=1 is not set", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")

# Two points at (0.25, 0.5) and (0.75, 0.75) of every crop; each crop is kept as its pixels' mean.
STAND_IN = """
window.score = 0.9; window.runs = [];
window.ort = {
  Tensor: class { constructor(kind, data, dims) { Object.assign(this, {kind, data, dims}); } },
  InferenceSession: {create: async name => ({run: async ({pixel_values}) => {
    window.runs.push({dims: pixel_values.dims, first: pixel_values.data[0], model: name});
    return {landmarks: {data: [0.25, 0.5, 0.75, 0.75]}, scores: {data: [window.score, window.score]}};
  }})},
};
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def page(tmp_path):
    shutil.copy(PAGE, tmp_path / "index.html")
    (tmp_path / "ort.wasm.min.js").write_text(STAND_IN)
    handler = partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_context(permissions=["camera"], viewport={"width": 390, "height": 844}).new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        yield page
        browser.close()
    server.shutdown()


def test_a_photograph_gets_its_points(page):
    """A square photograph is its own crop: of 512 px the points are at (128, 256) and (384, 384)."""
    page.locator("input").set_input_files(str(ROOT / "examples/astronaut.jpg"))
    page.wait_for_function("document.querySelector('canvas').width === 512 && window.runs.length === 1")
    color = "((x, y) => [...context.getImageData(x, y, 1, 1).data])"
    page.wait_for_function(f"{color}(128, 256).join() === '0,255,0,255'")
    assert page.evaluate(f"{color}(384, 384)") == [0, 255, 0, 255] != page.evaluate(f"{color}(300, 300)")
    (run,) = page.evaluate("window.runs")
    assert run["dims"] == [1, 3, 128, 128] and run["model"] == "model.onnx"
    assert -0.518 <= run["first"] <= 1 - 0.518
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_crop_goes_around_the_points_as_the_processor_cuts_it(page):
    from fabrec_hf.model.geometry import crop_box_from_box

    points = [[100, 80], [180, 90], [140, 200]]
    found = page.evaluate("points => around(points.map(([x, y]) => ({x, y})))", points)
    x, y, side, _ = crop_box_from_box([100, 80, 80, 120])
    assert found == pytest.approx([x, y, side])


def test_the_camera_is_followed_and_a_lost_face_is_named(page):
    page.locator("button").click()
    page.locator("output >> text=/^[0-9.]+ frames a second.$/").wait_for()
    page.evaluate("window.score = 0.1")
    page.locator("output >> text=The face is lost").wait_for()
    page.evaluate("window.score = 0.9")
    page.locator("output >> text=/^[0-9.]+ frames a second.$/").wait_for()


def test_without_a_camera_the_page_says_so(page):
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') } }"
    )
    page.locator("button").click()
    page.locator("output >> text=There is no camera that this page may use (NotFoundError).").wait_for()
    assert page.locator("button").is_enabled()
