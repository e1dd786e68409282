"""Convert and read a large generated set of faces, and measure time and memory.

    python training/benchmarks/benchmark_conversion.py --rows 1000000 --num-proc 2

The rows have 68 random points each and share a thousand small drawn pictures; every row embeds its own copy. Each
step runs in a process of its own, whose peak resident memory is printed: it must not grow with the number of rows.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm


POINTS = 68
PICTURES = 1000


def generate(folder: Path, rows: int) -> None:
    """Write `faces.csv` and its pictures."""
    random = np.random.default_rng(0)
    for index in range(PICTURES):
        pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{index}.jpg")
    header = ["image", "name", "box_x", "box_y", "box_width", "box_height"]
    header += [f"{axis}{point}" for point in range(POINTS) for axis in "xy"]
    lines = [",".join(f"{value:.2f}" for value in row) for row in random.uniform(8, 56, (PICTURES, 2 * POINTS))]
    with (folder / "faces.csv").open("w") as file:
        file.write(",".join(header) + "\n")
        for row in range(rows):
            file.write(f"{row % PICTURES}.jpg,face-{row},8,8,48,48,{lines[row % PICTURES]}\n")


def convert(folder: Path, output: Path, num_proc: int) -> int:
    """Convert the CSV file; returns the number of faces."""
    from fabrec_hf.data.conversion import ConversionSettings, convert_faces
    from fabrec_hf.data.readers import open_source

    source = open_source("csv", folder / "faces.csv")
    settings = ConversionSettings(num_proc=num_proc, progress=sys.stderr.isatty())
    return convert_faces(source, output, settings).splits["train"]["faces"]


def stream(output: Path) -> int:
    """Read all rows, pictures included, without a copy on disk; returns their number."""
    import datasets

    from fabrec_hf.data import load_faces

    faces = load_faces(output, streaming=True).cast_column("image", datasets.Image(decode=False))
    return sum(1 for _ in tqdm(faces, disable=not sys.stderr.isatty(), desc="streaming"))


def measure(function: Callable[..., int], *arguments) -> dict[str, float]:
    """Run a step in a new process: faces, seconds, and peak MB of that process and of the largest it started."""
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_timed, args=(other, function, arguments))
    process.start()
    other.close()
    result = pipe.recv()
    process.join()
    return result


def _timed(pipe, function: Callable[..., int], arguments: tuple) -> None:
    start = time.perf_counter()
    faces = function(*arguments)
    seconds = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    pipe.send(
        {
            "faces": faces,
            "seconds": round(seconds, 1),
            "faces_per_second": round(faces / seconds),
            "peak_mb": round(peaks[0]),
            "peak_mb_of_a_writer": round(peaks[1]),
        }
    )


def main() -> None:
    """Parse the arguments, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="faces to generate (%(default)s)")
    parser.add_argument("--num-proc", type=int, default=2, help="writing processes (%(default)s)")
    parser.add_argument("--folder", help="where to work; needs about 2 KB a row (a temporary folder)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        generate(folder, arguments.rows)
        result = {"convert": measure(convert, folder, folder / "parquet", arguments.num_proc)}
        result["stream"] = measure(stream, folder / "parquet")
        megabytes = sum(file.stat().st_size for file in folder.rglob("*.parquet")) / 2**20
        print(json.dumps(result | {"parquet_mb": round(megabytes)}, indent=2))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
