"""Measure the page Live camera of the demonstration: frames a second as the page shows them, and CPU time a frame.

    python training/benchmarks/benchmark_camera_page.py --output_dir runs/camera_page

It starts `fabrec demo` on a free port of this machine and opens the page in Chromium, whose camera shows a face that
moves. It needs Chromium, and `pip install playwright`. On a machine that does other work as well, CPU time says more
than the rate.

With `--web_folder` it measures the page of `examples/` instead, which finds landmarks in the browser alone. The folder
holds what that page says: `onnx_runtime_web.html`, `model.onnx` and the files of ONNX Runtime Web.
"""

import http.server
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmark_demo import FRAME, give_results, running_demo
from PIL import Image


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf.errors import FabRecError  # noqa: E402
from fabrec_hf.model.face_detection import default_face_detector  # noqa: E402


WARM_SECONDS = 5.0
# What both pages say of a face that is followed.
SEEN = re.compile(r"frames a second(, 1 face)?\.$")
COUNT = """() => {
  window.frames_drawn = 0;
  const drawn = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (source, ...more) {
    if (this.canvas.isConnected) window.frames_drawn++;  // the frame that is shown, not the one that is sent
    return drawn.call(this, source, ...more);
  };
}"""


@dataclass
class CameraPageArguments:
    """What to measure."""

    output_dir: str = field(metadata={"help": "Folder for results.json."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    picture: str = field(default="examples/astronaut.jpg", metadata={"help": "A photograph with one face."})
    web_folder: str | None = field(default=None, metadata={"help": "Measure the page of examples/ in this folder."})
    seconds: float = field(default=20.0, metadata={"help": "How long the camera is followed."})


def main(arguments: CameraPageArguments) -> None:
    """Measure, print and write the results."""
    web, picture = arguments.web_folder, Path(arguments.picture)
    serving = served_folder(Path(web)) if web else running_demo(arguments.model)
    with serving as url, tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "face.mjpeg"
        film.write_bytes(moving_film(picture))
        start = _start_example if web else _start_demo
        results = measure_page(url, start, film, arguments.seconds)
    give_results(results, Path(arguments.output_dir))


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yields the address of its page."""
    page = folder / "onnx_runtime_web.html"
    if not page.is_file():
        raise FabRecError(f"{page} is missing: copy it from examples/, with the files that it names.")
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{page.name}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def moving_film(picture: Path, frames: int = 60) -> bytes:
    """Make a film, as Chromium takes it for a camera, of the largest face of a photograph that moves to and fro."""
    with Image.open(picture) as opened:
        photograph = opened.convert("RGB")
    faces = default_face_detector()(np.asarray(photograph))
    if not faces:
        raise FabRecError(f"{picture}: there is no face.")
    x, y, width, height = faces[0].box
    tall = 2.2 * height
    wide = tall * FRAME[0] / FRAME[1]
    film = BytesIO()
    for shift in x + (width - wide) / 2 + width / 10 * np.sin(2 * np.pi * np.arange(frames) / frames):
        top = y + (height - tall) / 2
        box = (shift, top, shift + wide, top + tall)
        photograph.transform(FRAME, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR).save(film, "JPEG")
    return film.getvalue()


def _start_demo(page: Any) -> str:
    """Start the camera of the demonstration; returns where the page says what it sees."""
    page.get_by_role("tab", name="Live camera", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    return "#camera output"


def _start_example(page: Any) -> str:
    page.get_by_role("button", name="follow the camera").click()
    return "output"


def measure_page(url: str, start: Callable[[Any], str], film: Path, seconds: float) -> dict[str, Any]:
    """Follow the camera in a page for a while.

    Args:
        url: Of the page.
        start: Starts its camera, and returns the selector of what the page says.
        film: What the camera shows.
        seconds: How long.

    Returns:
        `page_says`, the last line of the page; `frames_a_second`; `server_cpu_ms` and `browser_cpu_ms` a frame;
        `load`, the CPU time that everything on the machine used meanwhile, in CPUs, and `cpus`, how many it has.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise FabRecError("Measuring the page needs Playwright: pip install playwright.") from error
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise FabRecError("Measuring the page needs Chromium (Debian, Ubuntu: apt install chromium).")
    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options.append(f"--use-file-for-fake-video-capture={film}")
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_context(permissions=["camera"]).new_page()
        page.set_default_timeout(180_000)
        page.goto(url)
        output = page.locator(start(page))
        output.filter(has_text=SEEN).wait_for()
        page.evaluate(COUNT)
        page.wait_for_timeout(1000 * WARM_SECONDS)
        before, drawn = cpu_seconds(), page.evaluate("window.frames_drawn")
        page.wait_for_timeout(1000 * seconds)
        after, drawn = cpu_seconds(), page.evaluate("window.frames_drawn") - drawn
        says = output.evaluate("element => element.value")
        browser.close()
    spent = {name: after[name] - before[name] for name in after}
    if not drawn:
        raise FabRecError(f"The page drew no frame. It says: {says}")
    return {
        "page_says": says,
        "frames_a_second": drawn / spent["clock"],
        "server_cpu_ms": 1000 * spent["server"] / drawn,
        "browser_cpu_ms": 1000 * spent["browser"] / drawn,
        "load": spent["machine"] / spent["clock"],
        "cpus": psutil.cpu_count(),
    }


def cpu_seconds() -> dict[str, float]:
    """Return the CPU time so far of the demonstration's server, of the browser and of the machine, and the clock."""
    spent = dict.fromkeys(("server", "browser"), 0.0)
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
            spent["server" if "fabrec_hf" in process.cmdline() else "browser"] += times.user + times.system
        except psutil.Error:  # it has ended meanwhile
            continue
    machine = psutil.cpu_times()
    return spent | {"machine": sum(machine) - machine.idle - machine.iowait, "clock": time.monotonic()}


if __name__ == "__main__":
    run_main(main, parse_arguments(CameraPageArguments, __doc__.splitlines()[0]))
