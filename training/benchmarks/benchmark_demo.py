"""Measure the demonstration: first answer, camera, where the time goes, and visitors who come all at once.

    python training/benchmarks/benchmark_demo.py --output_dir runs/demo

It starts `fabrec demo` on a free port of this machine and sends what the page would send. Stages are measured in this
process, in wall time and in CPU time; on a machine that does other work as well, only CPU time and shares say much.
"""

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from space_requests import SpaceClient, uploaded


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf.common.output_folder import write_files  # noqa: E402
from fabrec_hf.demo.detection import SEARCH_SIDE, find_faces  # noqa: E402
from fabrec_hf.demo.live_camera import LiveCamera  # noqa: E402
from fabrec_hf.demo.models import ModelShelf  # noqa: E402
from fabrec_hf.demo.uploads import Limits, decode_picture  # noqa: E402
from fabrec_hf.errors import FabRecError  # noqa: E402


FRAME = (640, 480)
ROUNDS = 30


@dataclass
class BenchmarkArguments:
    """What to measure."""

    output_dir: str = field(metadata={"help": "Folder for results.json."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    picture: str = field(default="examples/astronaut.jpg", metadata={"help": "A photograph with one face."})
    clients: int = field(default=8, metadata={"help": "Visitors at once."})
    seconds: float = field(default=60.0, metadata={"help": "How long they send photographs, one after the other."})
    frames: int = field(default=100, metadata={"help": "Frames of the camera."})


def main(arguments: BenchmarkArguments) -> None:
    """Measure, print and write the results."""
    content = Path(arguments.picture).read_bytes()
    with running_demo(arguments.model) as url:
        client = SpaceClient(url)
        event = client.event("detect")
        start = time.perf_counter()
        _detect(client, event, content)
        results: dict[str, Any] = {"first_answer_seconds": time.perf_counter() - start}
        results["load"] = load_test(url, event, content, arguments.clients, arguments.seconds)
    shelf = ModelShelf(arguments.model)
    results |= {
        "detect": measure_stages(shelf, _photograph_work(shelf, content), ROUNDS),
        "camera": measure_stages(shelf, _camera_work(shelf, content, arguments.frames), arguments.frames),
    }
    give_results(results, Path(arguments.output_dir))


def give_results(results: dict[str, Any], folder: Path) -> None:
    """Print results, and write them to a folder."""
    text = json.dumps(results, indent=2)
    write_files(folder, {"results.json": f"{text}\n".encode()})
    print(text)


@contextmanager
def running_demo(model: str) -> Iterator[str]:
    """Run `fabrec demo` in a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory() as sessions:
        command = [sys.executable, "-m", "fabrec_hf", "demo", "--model", model, "--port", str(port)]
        command += ["--sessions", sessions]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                if not process.stdout or not process.stdout.readline():
                    raise FabRecError("The demonstration did not start: see above.")
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _detect(client: SpaceClient, event: int, content: bytes) -> None:
    path = client.upload(content, "photograph.jpg")
    message = client.ask(event, [uploaded(path, "photograph.jpg"), 0.0])
    if not message.get("success"):
        raise RuntimeError(str(message.get("output")))


def load_test(url: str, event: int, content: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Let visitors send photographs, each the next one when it has its answer.

    Returns:
        `requests`, `errors` (their texts), and `p50_seconds` and `p95_seconds` from upload to answer.
    """
    times: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def visit() -> None:
        while (start := time.perf_counter()) < end:
            try:
                _detect(SpaceClient(url), event, content)
            except Exception as error:  # whatever goes wrong is what is counted
                errors.append(f"{type(error).__name__}: {error}")
            else:
                times.append(time.perf_counter() - start)

    visitors = [threading.Thread(target=visit) for _ in range(clients)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    p50, p95 = np.percentile(times, [50, 95]).tolist() if times else (None, None)
    return {
        "clients": clients,
        "seconds": seconds,
        "requests": len(times) + len(errors),
        "errors": sorted(set(errors)),
        "p50_seconds": p50,
        "p95_seconds": p95,
    }


def _photograph_work(shelf: ModelShelf, content: bytes) -> Callable[[], None]:
    """What the Detect page does with an upload."""
    limits = Limits()

    def work() -> None:
        found = find_faces(decode_picture(content, "a.jpg", limits, SEARCH_SIDE), shelf.finder(), shelf, limits)
        found.files()
        pictures = [found.overlay(), *found.slider_pictures(0)]
        pictures += [found.landmark_picture(0), found.heatmap_picture(0), found.explained_picture(0)]
        for picture in pictures:
            picture.save(BytesIO(), "WEBP")

    return work


def _camera_work(shelf: ModelShelf, content: bytes, frames: int) -> Callable[[], None]:
    """What the server does with a frame of the page Live camera; the face moves from frame to frame."""
    limits = Limits()
    photograph = decode_picture(content, "a.jpg", limits).image
    encoded = []
    for shift in 10 * np.sin(np.arange(frames) / 5):
        file = BytesIO()
        box = (shift, 0, photograph.width + shift, photograph.width * FRAME[1] / FRAME[0])
        photograph.transform(FRAME, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR).save(file, "JPEG")
        encoded.append(file.getvalue())
    live, left = LiveCamera(shelf.finder, limits), iter(encoded * 2)

    def work() -> None:
        picture = "data:image/jpeg;base64," + base64.b64encode(next(left)).decode()
        answer = live.look({"visit": "benchmark", "picture": picture, "first": True})
        json.dumps(answer["faces"])

    return work


def measure_stages(shelf: ModelShelf, work: Callable[[], None], rounds: int) -> dict[str, Any]:
    """Measure a piece of work, and how much of it is spent in the networks.

    Returns:
        `wall_ms` (median), `cpu_ms` (mean), and `share`: of the wall time that the landmark model and the autoencoder
        (`networks`), the face detector (`face_detector`) and all the rest (`own_code`) took.
    """
    finder = shelf.finder()
    detect = finder.detect
    spent: defaultdict[str, float] = defaultdict(float)
    walls: list[float] = []
    begun: list[float] = []
    modules: list[torch.nn.Module] = [finder.model, finder._fused, shelf.autoencoder]
    hooks = [module.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter())) for module in modules]

    def end(*_: Any) -> None:
        spent["networks"] += time.perf_counter() - begun.pop()

    hooks += [module.register_forward_hook(end) for module in modules]

    def timed_detect(image: Any) -> Any:
        start = time.perf_counter()
        boxes = detect(image)
        spent["face_detector"] += time.perf_counter() - start
        return boxes

    finder.detect = timed_detect  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            work()  # warm
        spent.clear()
        cpu = time.process_time()
        for _ in range(rounds - 1):
            start = time.perf_counter()
            work()
            walls.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
    finally:
        del finder.detect
        for hook in hooks:
            hook.remove()
    total = sum(walls)
    share = {name: spent[name] / total for name in ("networks", "face_detector")}
    return {
        "wall_ms": 1000 * float(np.median(walls)),
        "cpu_ms": 1000 * cpu / len(walls),
        "frames_a_second": len(walls) / total,
        "share": share | {"own_code": 1 - sum(share.values())},
    }


if __name__ == "__main__":
    run_main(main, parse_arguments(BenchmarkArguments, __doc__.splitlines()[0]))
